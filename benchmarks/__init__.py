"""Side by side with peers: each module here has a `run()` that measures and says what came out; see `python -m benchmarks`."""
