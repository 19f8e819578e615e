"""A network's notation in, a trainable network with weight banks out.

What comes in: layers, rules and their settings. What goes out: a torch module that runs a window
of T steps, Eq. 1-12, plain or fused. This room knows no data set, no optimiser and no file.
"""
