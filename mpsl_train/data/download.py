"""Downloads of public data sets, each file checked before it is put in its place.

What there is to download, and the hashes of its content, stands in `sources`.
"""

from __future__ import annotations

import sys
import tarfile
import zlib
from pathlib import Path
from urllib.parse import urlsplit

from mpsl_runtime.errors import DataError, UsageError
from mpsl_train.data.sources import Download, RemoteFile, source_of
from mpsl_train.data.staging import staged

__all__ = ["fetch"]

_TIMEOUT_S = 30


def fetch(name: str, root: Path, *, progress: bool = True) -> None:
    """Downloads what is missing of a data set into `root`.

    Nothing appears in `root` before every file is there and has been checked.

    Args:
        name: of a data set whose source is a download.
        root: the data set's own folder; made when absent.
        progress: a bar on stderr, if that is a terminal.

    Raises:
        DataError: no network, no mirror has the file, or its content is not the published one;
            also when `root` has a file of that name with other content.
        OutputError: `root` cannot be written. UsageError: there is no download of that name.
    """
    source, missing = source_of(name), []
    if not isinstance(source, Download):
        raise UsageError("data set cannot be downloaded", got=repr(name))
    for file in source.files():
        path = root / file.name
        if file.folder and (root / file.folder).is_dir():
            continue
        if not path.exists():
            missing.append(file)
        elif not file.matches(path):
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
        if file.matches(path):
            return
        reasons.append(f"{file.algorithm} is not {file.digest[:12]}…")
    raise DataError(
        f"{file.name} of data set {name} cannot be downloaded",
        got=", ".join(
            f"{why} at {urlsplit(url).netloc}" for why, url in zip(reasons, file.urls, strict=True)
        ),
        expected="a network; or put it there yourself, or pass --data",
        where=root,
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
