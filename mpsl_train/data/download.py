"""Downloads of public data sets, each file checked before it is put in its place.

| data set | files | checked by |
|---|---|---|
| `mnist`, `fashion-mnist` | the four IDX files | sha256 of the uncompressed content |
| `cifar10` | cifar-10-binary.tar.gz, read as it is | sha256 of the archive |
| `nmnist` | train.zip, test.zip from the address that tonic knows | tonic's md5 of the zip |
| `dvs-gesture` | tonic's two archives, 3.1 GB, unpacked | tonic's md5 of the archive |

tonic 1.7's own addresses of DVS-Gesture answer programs with an empty page (neuromorphs/tonic#330);
figshare's programming interface serves the same files, so it is asked first.

Of IDX files the content is hashed, not the .gz: copies packed again (Debian's, mirrors', a user's
own) are the same data with other bytes.
"""

from __future__ import annotations

import gzip
import hashlib
import sys
import tarfile
import zlib
from dataclasses import dataclass
from pathlib import Path

from mpsl_runtime.data.layouts import cifar
from mpsl_runtime.errors import DataError, UsageError
from mpsl_train.data.staging import staged

__all__ = [
    "CIFAR10_BATCHES",
    "DOWNLOADS",
    "FIGSHARE",
    "MIRRORS",
    "RemoteFile",
    "fetch",
    "matches",
    "remote_files",
]

DOWNLOADS = ("cifar10", "dvs-gesture", "fashion-mnist", "mnist", "nmnist")

MIRRORS: dict[str, tuple[str, ...]] = {
    "mnist": (
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
    ),
    "fashion-mnist": (
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
    ),
    "cifar10": ("https://www.cs.toronto.edu/~kriz/",),
}

FIGSHARE = "https://api.figshare.com/v2/file/download/"

_CIFAR10_SHA256 = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"

# sha256 of the published batches, to know them when they are unpacked.
CIFAR10_BATCHES = {
    "data_batch_1.bin": "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5",
    "data_batch_2.bin": "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed",
    "data_batch_3.bin": "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67",
    "data_batch_4.bin": "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48",
    "data_batch_5.bin": "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add",
    "test_batch.bin": "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b",
}

_IDX_SHA256 = {
    "mnist": {
        "train-images-idx3-ubyte.gz": (
            "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db"
        ),
        "train-labels-idx1-ubyte.gz": (
            "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5"
        ),
        "t10k-images-idx3-ubyte.gz": (
            "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7"
        ),
        "t10k-labels-idx1-ubyte.gz": (
            "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"
        ),
    },
    "fashion-mnist": {
        "train-images-idx3-ubyte.gz": (
            "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888"
        ),
        "train-labels-idx1-ubyte.gz": (
            "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9"
        ),
        "t10k-images-idx3-ubyte.gz": (
            "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b"
        ),
        "t10k-labels-idx1-ubyte.gz": (
            "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34"
        ),
    },
}

_TIMEOUT_S = 30
_CHUNK = 1 << 20
_LARGEST_CONTENT = 1 << 28  # five times MNIST: a .gz that unpacks to more is a trap


@dataclass(frozen=True)
class RemoteFile:
    """A file of a data set.

    Attributes:
        name: as it is stored.
        urls: where it is, in the order in which they are tried.
        algorithm: `sha256` of the content, uncompressed; `file-sha256` or `md5` of the file.
        digest: hexadecimal.
        folder: that a tar archive unpacks to, and which then stands for it; "" = stays packed.
    """

    name: str
    urls: tuple[str, ...]
    algorithm: str
    digest: str
    folder: str = ""


def remote_files(name: str) -> list[RemoteFile]:
    """The files that make a data set.

    Raises:
        UsageError: there is no download of that name.
    """
    if name in _IDX_SHA256:
        return [
            RemoteFile(file, tuple(base + file for base in MIRRORS[name]), "sha256", digest)
            for file, digest in _IDX_SHA256[name].items()
        ]
    if name == "cifar10":
        urls = tuple(base + cifar.ARCHIVE for base in MIRRORS[name])
        return [RemoteFile(cifar.ARCHIVE, urls, "file-sha256", _CIFAR10_SHA256)]
    if name == "nmnist":
        from tonic.datasets import NMNIST  # it knows the address and the checksums

        return [
            RemoteFile("train.zip", (NMNIST.train_url,), "md5", NMNIST.train_md5),
            RemoteFile("test.zip", (NMNIST.test_url,), "md5", NMNIST.test_md5),
        ]
    if name == "dvs-gesture":
        from tonic.datasets import DVSGesture

        return [
            RemoteFile(archive, (_mended(url), url), "md5", md5, archive.removesuffix(".tar.gz"))
            for archive, url, md5 in (
                (DVSGesture.train_filename, DVSGesture.train_url, DVSGesture.train_md5),
                (DVSGesture.test_filename, DVSGesture.test_url, DVSGesture.test_md5),
            )
        ]
    raise UsageError("data set cannot be downloaded", got=repr(name), expected=", ".join(DOWNLOADS))


def _mended(url: str) -> str:
    """figshare's address for programs of a file that has one for browsers."""
    return FIGSHARE + url.rstrip("/").rpartition("/")[2]


def matches(path: Path, file: RemoteFile) -> bool:
    """Whether the file at `path` has the content that `file` should have; False if damaged."""
    try:
        if file.algorithm != "sha256":
            kind = _md5 if file.algorithm == "md5" else hashlib.sha256
            with path.open("rb") as stream:
                return hashlib.file_digest(stream, kind).hexdigest() == file.digest
        return _content_sha256(path) == file.digest
    except (EOFError, zlib.error, gzip.BadGzipFile):
        return False


def _md5() -> hashlib._Hash:
    # Against damage in transit: no better digest of this archive is published.
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


def fetch(name: str, root: Path, *, progress: bool = True) -> None:
    """Downloads what is missing of a data set into `root`.

    Nothing appears in `root` before every file is there and has been checked.

    Args:
        name: one of `DOWNLOADS`.
        root: the data set's own folder; made when absent.
        progress: a bar on stderr, if that is a terminal.

    Raises:
        DataError: no network, no mirror has the file, or its content is not the published one;
            also when `root` has a file of that name with other content.
        OutputError: `root` cannot be written. UsageError: unknown name.
    """
    root = Path(root)
    missing = []
    for file in remote_files(name):
        path = root / file.name
        if file.folder and (root / file.folder).is_dir():
            continue
        if not path.exists():
            missing.append(file)
        elif not matches(path, file):
            raise DataError(
                f"file of data set {name} has other content than the published one",
                expected=f"{file.algorithm} {file.digest}; remove it to download it again",
                where=path,
            )
    if not missing:
        return
    with staged(root) as stage:
        for file in missing:
            _download(name, file, stage / file.name, root, progress and sys.stderr.isatty())
            if file.folder:
                _unpack(stage / file.name, file.folder)


def _download(name: str, file: RemoteFile, path: Path, root: Path, bar: bool) -> None:
    """Tries each address until one gives the right content."""
    import pooch
    import requests

    load = pooch.HTTPDownloader(progressbar=bar, timeout=_TIMEOUT_S)
    reasons = []
    for url in file.urls:
        try:
            load(url, str(path), None)
        except requests.RequestException as error:
            reasons.append(_reason(error))
            continue
        if matches(path, file):
            return
        reasons.append(f"{file.algorithm} is not {file.digest}")
    raise DataError(
        f"{file.name} of data set {name} cannot be downloaded",
        got=", ".join(f"{why} at {url}" for why, url in zip(reasons, file.urls, strict=True)),
        expected=f"a network; or get it from there, put it in {root}, or pass --data",
    )


def _unpack(archive: Path, folder: str) -> None:
    """Unpacks an archive beside itself and removes it; nothing may land outside its folder."""
    try:
        with tarfile.open(archive, "r:gz") as packed:
            members = [m for m in packed if Path(m.name).parts[:1] == (folder,)]
            packed.extractall(archive.parent, members, filter="data")
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise DataError("archive cannot be unpacked", got=error, where=archive.name) from None
    if not (archive.parent / folder).is_dir():
        raise DataError("archive lacks its folder", expected=folder, where=archive.name)
    archive.unlink()


def _reason(error: Exception) -> str:
    """What happened, in two words: the text of the exception names sockets and pools."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status is not None:
        return f"HTTP {status}"
    return "no answer" if "Timeout" in type(error).__name__ else "no connection"
