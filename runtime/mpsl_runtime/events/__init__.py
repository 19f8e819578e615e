"""Recordings in, events cut into time steps out.

What comes in: bytes of a camera file, in any of the formats that are known here. What goes out:
`Events` (columns t, x, y, p in time order), and from them the input of each step, by the one
binning rule of training and inference. This room knows no network, no label and no socket.
"""
