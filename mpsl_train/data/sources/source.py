"""What the source of a data set is: files to download, or a program that makes them."""

from __future__ import annotations

import gzip
import hashlib
import importlib
import pkgutil
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, TypeVar

__all__ = ["Download", "RemoteFile", "Simulation", "register", "source_of"]

_CHUNK = 1 << 20
_LARGEST_CONTENT = 1 << 28  # five times MNIST: a .gz that unpacks to more is a trap


@dataclass(frozen=True)
class RemoteFile:
    """A file of a data set.

    Attributes:
        name: as it is stored.
        urls: where it is, in the order in which they are tried.
        algorithm: `sha256` of the content, uncompressed: copies packed again (Debian's, mirrors', a
            user's own) are the same data with other bytes; `file-sha256` or `md5` of the file.
        digest: hexadecimal.
        folder: that a tar archive unpacks to, and which then stands for it; "" = stays packed.
    """

    name: str
    urls: tuple[str, ...]
    algorithm: str
    digest: str
    folder: str = ""

    def matches(self, path: Path) -> bool:
        """Whether the file at `path` has the content of this one; False if it is damaged."""
        try:
            if self.algorithm == "sha256":
                return _content_sha256(path) == self.digest
            kind = _md5 if self.algorithm == "md5" else hashlib.sha256
            with path.open("rb") as stream:
                return hashlib.file_digest(stream, kind).hexdigest() == self.digest
        except (EOFError, zlib.error, gzip.BadGzipFile):
            return False


@dataclass(frozen=True)
class Download:
    """A data set that somebody publishes.

    Attributes:
        dataset: its name. files: those that make it; asked for when they are needed, since tonic,
            which knows some of them, takes seconds to import.
        published: whether a folder has the published content, however packed; None: not known.
    """

    kind: ClassVar[str] = "download"

    dataset: str
    files: Callable[[], Sequence[RemoteFile]]
    published: Callable[[Path], bool] | None = None


@dataclass(frozen=True)
class Simulation:
    """A data set that a program makes: `make(root, seed=0)`.

    Attributes:
        dataset: its name. make: raises DataError when `root` holds something else.
    """

    kind: ClassVar[str] = "simulation"

    dataset: str
    make: Callable[..., None]


_SOURCES: dict[str, Download | Simulation] = {}


Source = TypeVar("Source", Download, Simulation)


def register(source: Source) -> Source:
    """Makes a source known under the name of its data set; returns it."""
    _SOURCES[source.dataset] = source
    return source


def source_of(dataset: str) -> Download | Simulation | None:
    """Where a data set comes from; None: its user has to bring it."""
    package = __name__.rpartition(".")[0]
    for module in pkgutil.iter_modules(importlib.import_module(package).__path__):
        importlib.import_module(f"{package}.{module.name}")
    return _SOURCES.get(dataset)


def _md5() -> hashlib._Hash:
    # Against damage in transit: no better digest of such an archive is published.
    return hashlib.md5(usedforsecurity=False)


def _content_sha256(path: Path) -> str:
    with path.open("rb") as plain:
        compressed = plain.read(2) == b"\x1f\x8b"
    digest, size = hashlib.sha256(), 0
    with gzip.open(path) if compressed else path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
            size += len(chunk)
            if size > _LARGEST_CONTENT:
                return "too large"
    return digest.hexdigest()
