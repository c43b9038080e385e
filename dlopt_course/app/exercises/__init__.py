"""What makes an answer to an exercise right, found by `core.check("lesson-exercise", answer)`.

One module a lesson; `judge` is what they share.
"""
