"""A data set's name in, batches of frames out.

What comes in: the name of a data set and where it may lie. What goes out: samples binned once, in
batches, and the data sets that are made or downloaded here. Reading the files is
`mpsl_runtime.data`; this room knows no network.
"""
