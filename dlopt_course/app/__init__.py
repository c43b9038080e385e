"""The program around the lessons: command line, running lessons, learner's copies, the site."""
