"""Downloads of data sets in MNIST's format: four files, known by the hash of their content."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mpsl_train.data.sources.source import Download, RemoteFile

__all__ = ["idx_download"]

_NAMES = (
    "train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz", "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
)  # fmt: skip


def idx_download(dataset: str, mirrors: Sequence[str], digests: Sequence[str]) -> Download:
    """The source of such a data set.

    Args:
        mirrors: addresses of folders with the four files, in the order in which they are tried.
        digests: sha256 of the uncompressed content of training images and labels, then the test's.
    """
    files = [
        RemoteFile(name, tuple(base + name for base in mirrors), "sha256", digest)
        for name, digest in zip(_NAMES, digests, strict=True)
    ]

    def published(root: Path) -> bool:
        from mpsl_runtime.data.layouts import idx

        paths = [path for split in ("train", "test") for path in idx.find_pair(root, split) or ()]
        return len(paths) == len(files) and all(
            file.matches(path) for path, file in zip(paths, files, strict=True)
        )

    return Download(dataset, lambda: files, published)
