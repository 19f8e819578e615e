"""CIFAR-10 (A. Krizhevsky), one archive that is read as it is."""

from __future__ import annotations

import hashlib
from pathlib import Path

from mpsl_train.data.sources.source import Download, RemoteFile, register

__all__ = ["SOURCE"]

_ARCHIVE = "cifar-10-binary.tar.gz"
_SHA256 = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
# sha256 of the published batches, to know them when they are unpacked.
_BATCHES = {
    "data_batch_1.bin": "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5",
    "data_batch_2.bin": "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed",
    "data_batch_3.bin": "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67",
    "data_batch_4.bin": "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48",
    "data_batch_5.bin": "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add",
    "test_batch.bin": "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b",
}


def _published(root: Path) -> bool:
    from mpsl_runtime.data.layouts import cifar

    batches = {**cifar.read_batches(root, "train"), **cifar.read_batches(root, "test")}
    found = {name: hashlib.sha256(content).hexdigest() for name, content in batches.items()}
    return found == _BATCHES


SOURCE = register(
    Download(
        "cifar10",
        lambda: [
            RemoteFile(
                _ARCHIVE, (f"https://www.cs.toronto.edu/~kriz/{_ARCHIVE}",), "file-sha256", _SHA256
            )
        ],
        _published,
    )
)
