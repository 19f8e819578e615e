"""HDF5 files of unknown origin: bytes in, nested dicts of arrays and text out, all within limits.

The HDF5 library trusts what it reads: a kilobyte can make it take gigabytes, read other files or
never come back. Here the part of the format that models use is read in Python alone, every address,
size and count checked before it is believed. Knows nothing of models and opens no other file.
"""

__all__: list[str] = []
