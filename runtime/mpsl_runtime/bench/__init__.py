"""A model in, its speed beside other programs out.

What comes in: a plan and the input to measure it on. What goes out: medians of time a step, in
turns with other programs in one process, and whether all computed the same.
"""
