"""A run and its exported files in, a verdict out.

What comes in: the record of training and the files of `write`. What goes out: equal or not,
sample by sample and spike by spike, in every back end, and the first place that differs. torch
appears in `backends` alone.
"""
