"""Side by side with peers. Each module here has a `run()` that measures; `python -m benchmarks` calls them."""
