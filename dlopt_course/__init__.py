"""Optimising and tuning deep learning: a course you read, run and import, in which every result is checked

Modules:

- `dlopt_course.app.distributed`: Train the course's network on any number of processes and machines:
- `dlopt_course.app.gates`: Every engine of lesson 9 trains one network from the same start: how far apart do they end?
- `dlopt_course.app.recordings`: Measurements that were recorded on a GPU, each with its origin, for readers who have none.
- `dlopt_course.app.start`: A learner's own copy of the lessons, with the solutions taken out."""

__version__ = "0.1.0"
