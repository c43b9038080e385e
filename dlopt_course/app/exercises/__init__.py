"""What makes an answer to an exercise right. One module a lesson, found by `core.check("lesson-exercise", answer)`."""
