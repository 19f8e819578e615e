"""Files of a data set in, labelled samples out.

What comes in: a folder, zip or archive as its authors publish it, or pictures and arrays. What goes
out: sample ids, labels and the network's input, the same for training, verification and `mpsl run`.
This room downloads nothing and knows no torch. How files lie is the matter of `layouts`.
"""
