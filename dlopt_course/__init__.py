"""Optimising and tuning deep learning: a course you read, run and import, in which every result is checked

Modules:

- `dlopt_course.app.start`: A learner's own copy of the lessons, with the solutions taken out."""

__version__ = "0.1.0"
