"""Zips, packed tars and arrays of a stranger: small files that ask for much are refused."""

from __future__ import annotations

import gzip
import io
import struct
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mpsl_runtime.data import containers
from mpsl_runtime.data.containers import map_array, open_zip, read_member
from mpsl_runtime.data.layouts import cifar, idx
from mpsl_runtime.errors import DataError


def member(path: Path, largest: int = 1 << 20) -> bytes:
    with open_zip(path) as archive:
        return read_member(archive, "a", largest, noun="recording", where=path / "a")


def zipped(path: Path, content: bytes, method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("a", content)
    return path


def peak_bytes(call: Callable[[], object]) -> int:
    """The most memory that Python had taken while `call` was refused."""
    tracemalloc.start()
    try:
        with pytest.raises(DataError) as caught:
            call()
        assert "\n" not in str(caught.value)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_member_is_read_and_one_that_is_too_large_is_not(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", bytes(1 << 20))
    assert member(path) == bytes(1 << 20)
    assert peak_bytes(lambda: member(path, (1 << 20) - 1)) < 1 << 18


def test_a_member_that_is_larger_than_it_says_gives_no_more_than_it_says(tmp_path: Path) -> None:
    content = bytearray(zipped(tmp_path / "a.zip", bytes(1 << 26)).read_bytes())
    size = struct.pack("<I", 1 << 26)
    while (at := content.find(size)) >= 0:
        content[at : at + 4] = struct.pack("<I", 100)
    (tmp_path / "a.zip").write_bytes(content)
    assert peak_bytes(lambda: member(tmp_path / "a.zip")) < 1 << 22


@pytest.mark.parametrize("method", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_unusual_compression_is_refused(tmp_path: Path, method: int) -> None:
    path = zipped(tmp_path / "a.zip", b"text", method)
    with pytest.raises(DataError, match="compression of the recording in the zip is not read"):
        member(path)


def test_an_encrypted_member_and_an_absent_one_are_one_line(tmp_path: Path) -> None:
    content = bytearray(zipped(tmp_path / "a.zip", b"text").read_bytes())
    content[content.index(b"PK\1\2") + 8] |= 1
    content[content.index(b"PK\3\4") + 6] |= 1
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(DataError, match=r"cannot be read; got .*encrypted"):
        member(tmp_path / "a.zip")
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.writestr("b", b"")
    with pytest.raises(DataError, match="cannot be read"):
        member(tmp_path / "b.zip")


def test_a_list_of_too_many_members_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for index in range(200):
            archive.writestr(f"{index}" * 20, b"")
    monkeypatch.setattr(containers, "LARGEST_DIRECTORY", 10_000)
    with pytest.raises(DataError, match="zip lists too many members"):
        open_zip(path)


def test_every_end_of_a_zip_is_read_or_refused(tmp_path: Path) -> None:
    content = zipped(tmp_path / "a.zip", b"text").read_bytes()
    path = tmp_path / "cut.zip"
    for size in range(len(content)):
        path.write_bytes(content[:size])
        with pytest.raises(DataError, match="damaged or truncated zip"):
            open_zip(path)


def archive(root: Path, *headers: tuple[tarfile.TarInfo, bytes]) -> Path:
    with gzip.open(root / cifar.ARCHIVE, "wb") as packed:
        for info, content in headers:
            packed.write(info.tobuf() + content + bytes(-len(content) % 512))
    return root


def info(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> tarfile.TarInfo:
    found = tarfile.TarInfo(name)
    found.size, found.type = size, kind
    return found


def zeros(path: Path, head: bytes, size: int) -> None:
    """A gzip of `head` and then so many zeros, made a piece at a time."""
    with gzip.open(path, "wb", 9) as packed:
        packed.write(head)
        for _ in range(size >> 22):
            packed.write(bytes(1 << 22))


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.REGTYPE])
def test_an_archive_that_becomes_gigabytes_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: bytes
) -> None:
    """A header of extensions, a name or a file that nobody asked for; here with a small limit."""
    monkeypatch.setattr(cifar, "_LARGEST_ARCHIVE", 1 << 22)
    name = info("readme", 3 << 30, kind).tobuf(tarfile.GNU_FORMAT)
    zeros(tmp_path / cifar.ARCHIVE, name, 1 << 26)
    assert peak_bytes(lambda: cifar.read_batches(tmp_path, "test")) < 3 << 22


def test_an_archive_of_very_many_members_is_refused(tmp_path: Path) -> None:
    root = archive(tmp_path, *((info(str(index), 0), b"") for index in range(1001)))
    with pytest.raises(DataError, match="archive has too many members"):
        cifar.read_batches(root, "test")


def test_long_names_within_long_names_are_refused(tmp_path: Path) -> None:
    nested = [(info("././@LongLink", 4, tarfile.GNUTYPE_LONGNAME), b"name")] * 3000
    root = archive(tmp_path, *nested)
    with pytest.raises(DataError, match="damaged or truncated archive"):
        cifar.read_batches(root, "test")


def test_an_idx_file_that_becomes_gigabytes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a-ubyte.gz"
    path.write_bytes(gzip.compress(struct.pack(">BBBBIII", 0, 0, 8, 3, 1 << 20, 28, 28)))
    with pytest.raises(DataError, match="asks for too much"):
        idx.read_idx(path, 3)
    zeros(path, struct.pack(">BBBBIII", 0, 0, 8, 3, 10, 28, 28), 1 << 26)
    assert peak_bytes(lambda: idx.read_idx(path, 3)) < 1 << 22


def npy(header: str) -> bytes:
    text = header.encode("latin-1")
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x93NUMPY",
        npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000,), }"),
        npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }") + bytes(8),
        npy("{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }") + bytes(8),
        npy("{'descr': '<f4', 'fortran_order': False, 'shape': (" + "9" * 5000 + ",), }"),
        npy("(" * 5000),
        npy("[" * 9000 + "]" * 500),
        npy("{'descr': '<f4', 'fortran_order': False, 'shape': (2,), " + " " * 60_000 + "}"),
        npy("{'descr': '''"),
        npy("{" + "'a':1," * 100 + "}"),
        npy("\\\x00\x01 \x0c\t if"),
        b"PK\x05\x06" + bytes(18),
        b"\x80\x04K\x01.",
    ],
    ids=range(14),
)  # fmt: skip
def test_what_is_no_array_is_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.npy"
    path.write_bytes(content)
    with pytest.raises(DataError, match="damaged file") as caught:
        map_array(path, damage="damaged file")
    assert "\n" not in str(caught.value)


def test_an_archive_of_arrays_is_no_array(tmp_path: Path) -> None:
    stream = io.BytesIO()
    np.savez(stream, a=np.ones(3))
    (tmp_path / "a.npy").write_bytes(stream.getvalue())
    with pytest.raises(DataError, match="damaged file; got an archive"):
        map_array(tmp_path / "a.npy", damage="damaged file")
    np.save(tmp_path / "b.npy", np.arange(4))
    assert map_array(tmp_path / "b.npy", damage="x").tolist() == [0, 1, 2, 3]
