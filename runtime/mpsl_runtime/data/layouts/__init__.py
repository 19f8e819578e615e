"""How the files of a data set lie on disk: one file a layout, each registered by its name.

What comes in: a folder. What goes out: whether the data set is there, and its samples with ids and
labels. A layout knows no data set: what it must be told of one stands in `catalogue`. Every module
of this folder registers itself on import.
"""

from mpsl_runtime.data.layouts.layout import (
    ImageSamples,
    Layout,
    RecordingSamples,
    SplitName,
    layout_of,
    register,
)

__all__ = [
    "ImageSamples",
    "Layout",
    "RecordingSamples",
    "SplitName",
    "layout_of",
    "register",
]
