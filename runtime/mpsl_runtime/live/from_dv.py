"""`dv://host:port`: the stream of DV and of dv-processing's NetworkWriter; we connect.

Such a stream is an AEDAT 4.0 file without its first line, and is read by the same decoder. So it
needs no dv-processing: measured with 2.0.4, the constructor of its NetworkReader holds the
interpreter's lock until a header has come, so that a silent server cannot be left by Ctrl-C.
"""

from __future__ import annotations

from mpsl_runtime.live import from_tcp

__all__ = ["Source"]


class Source(from_tcp.Source):
    """Connects when it is opened."""

    begin = b"#!AER-DAT4.0\r\n"
