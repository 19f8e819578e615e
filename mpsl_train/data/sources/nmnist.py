"""N-MNIST (G. Orchard et al.), from the address that tonic knows."""

from __future__ import annotations

from mpsl_train.data.sources.source import Download, RemoteFile, register

__all__ = ["SOURCE"]


def _files() -> list[RemoteFile]:
    from tonic.datasets import NMNIST  # it knows the address and the checksums

    return [
        RemoteFile("train.zip", (NMNIST.train_url,), "md5", NMNIST.train_md5),
        RemoteFile("test.zip", (NMNIST.test_url,), "md5", NMNIST.test_md5),
    ]


SOURCE = register(Download("nmnist", _files))
