"""Where data sets come from, one file each: downloads and the hashes of their content, simulations.

What comes in: the name of a data set. What goes out: addresses and hashes, or the program that
makes it. Every module of this folder registers itself; nothing is fetched here.
"""

from __future__ import annotations

from mpsl_train.data.sources.source import (
    Download,
    RemoteFile,
    Simulation,
    register,
    source_of,
)

__all__ = ["Download", "RemoteFile", "Simulation", "register", "source_of"]
