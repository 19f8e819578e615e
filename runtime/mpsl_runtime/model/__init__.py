"""A `.nir` file in, a checked plan of its nodes out.

What comes in: a NIR graph that a stranger may have written. What goes out: a `Plan`, every shape,
unit and threshold decided, with the metadata that NIR cannot say and the grid of int8 weights.
This room runs nothing.
"""
