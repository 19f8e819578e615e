"""A float network and samples in, the same network on a power-of-two grid out.

What comes in: a merged network and held-out samples to calibrate on. What goes out: int8 weights
that every back end computes exactly, with the proof that no sum leaves its range.
"""
