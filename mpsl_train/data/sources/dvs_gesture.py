"""DVS128 Gesture (A. Amir et al.), tonic's two archives of 3.1 GB, unpacked.

tonic 1.7's own addresses answer programs with an empty page (neuromorphs/tonic#330); figshare's
programming interface serves the same files, so it is asked first.
"""

from __future__ import annotations

from mpsl_train.data.sources.source import Download, RemoteFile, register

__all__ = ["FIGSHARE", "SOURCE"]

FIGSHARE = "https://api.figshare.com/v2/file/download/"


def _files() -> list[RemoteFile]:
    from tonic.datasets import DVSGesture

    archives = (
        (DVSGesture.train_filename, DVSGesture.train_url, DVSGesture.train_md5),
        (DVSGesture.test_filename, DVSGesture.test_url, DVSGesture.test_md5),
    )
    return [
        RemoteFile(
            name, (FIGSHARE + url.rstrip("/").rpartition("/")[2], url), "md5", md5,
            name.removesuffix(".tar.gz"),
        )
        for name, url, md5 in archives
    ]  # fmt: skip


SOURCE = register(Download("dvs-gesture", _files))
