"""A recipe in, a run folder out.

What comes in: a recipe and frames. What goes out: banks, the record of the test set, history,
report and checkpoints that go on where they stopped.
"""
