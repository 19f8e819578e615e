"""Downloads, from a server on this machine: whole and checked, or not at all."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest

from mpsl_runtime.data import datasets
from mpsl_runtime.data.layouts import cifar, idx
from mpsl_runtime.errors import DataError, OutputError, UsageError
from mpsl_train.data.download import fetch
from mpsl_train.data.sources import Download, RemoteFile, source, source_of
from mpsl_train.data.sources.idx_files import idx_download

NAMES = [
    f"{part}-{what}-ubyte.gz"
    for part in ("train", "t10k")
    for what in ("images-idx3", "labels-idx1")
]


class Server:
    """A mirror: the folder that it serves, its address, and what was asked of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: list[str] = []
        outer = self

        class Handler(SimpleHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                pass

            def do_GET(self) -> None:
                outer.asked.append(self.path.strip("/"))
                super().do_GET()

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}/"
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.02,))
        self.thread.start()

    def close(self) -> None:
        """Stops serving and frees the port."""
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A mirror with a tiny MNIST, whose hashes stand for the published ones."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    folder = tmp_path / "served"
    folder.mkdir()
    hashes = []
    for name in NAMES:
        count = 20 if name.startswith("train") else 10
        rng = np.random.default_rng(count)
        if "images" in name:
            head = np.array([0x803, count, 28, 28], ">u4").tobytes()
            data = head + rng.integers(256, size=count * 784, dtype=np.uint8).tobytes()
        else:
            head = np.array([0x801, count], ">u4").tobytes()
            data = head + (np.arange(count) % 10).astype(np.uint8).tobytes()
        (folder / name).write_bytes(gzip.compress(data))
        hashes.append(hashlib.sha256(data).hexdigest())
    server = Server(folder)
    assert source_of("mnist") is not None  # all have registered
    monkeypatch.setitem(source._SOURCES, "mnist", idx_download("mnist", [server.url], hashes))
    yield server
    server.close()


def files_of(name: str) -> list[RemoteFile]:
    """What there is to download."""
    found = source_of(name)
    assert isinstance(found, Download)
    return list(found.files())


def served_by(
    monkeypatch: pytest.MonkeyPatch, name: str, *mirrors: str, digest: str | None = None
) -> None:
    """The same files at other addresses."""
    real = source_of(name)
    assert isinstance(real, Download)
    files = [
        replace(
            file,
            urls=tuple(base + file.name for base in mirrors),
            digest=digest or file.digest,
        )
        for file in real.files()
    ]
    monkeypatch.setitem(source._SOURCES, name, replace(real, files=lambda: files))


@pytest.fixture
def dead_url(tmp_path: Path) -> str:
    """An address where nobody answers any more."""
    server = Server(tmp_path)
    server.close()
    return server.url


def left_in(folder: Path) -> list[str]:
    """Everything in a folder, hidden or not, except the mirror's own files."""
    return sorted(path.name for path in folder.iterdir() if path.name != "served")


def test_a_data_set_is_downloaded_and_opens(mirror: Server, tmp_path: Path) -> None:
    root = tmp_path / "cache" / "mnist"
    fetch("mnist", root)
    assert left_in(root) == sorted(NAMES)
    assert left_in(root.parent) == ["mnist"]
    assert len(datasets.open_split("mnist", root, "train")) == 20
    assert len(datasets.open_split("mnist", root, "test")) == 10


def test_what_is_there_is_not_downloaded_again(mirror: Server, tmp_path: Path) -> None:
    root = tmp_path / "mnist"
    fetch("mnist", root)
    assert sorted(mirror.asked) == sorted(NAMES)
    (root / NAMES[0]).unlink()
    (root / "notes.txt").write_text("mine")
    mirror.asked.clear()
    fetch("mnist", root)
    assert mirror.asked == [NAMES[0]]
    assert left_in(root) == sorted([*NAMES, "notes.txt"])


def test_a_file_packed_otherwise_is_the_same_data(mirror: Server, tmp_path: Path) -> None:
    content = gzip.decompress((mirror.folder / NAMES[0]).read_bytes())
    (mirror.folder / NAMES[0]).write_bytes(gzip.compress(content, compresslevel=1, mtime=7))
    (mirror.folder / NAMES[1]).write_bytes(gzip.decompress((mirror.folder / NAMES[1]).read_bytes()))
    fetch("mnist", tmp_path / "mnist")
    assert idx.read_idx(tmp_path / "mnist" / NAMES[0], 3).shape == (20, 28, 28)
    assert idx.read_idx(tmp_path / "mnist" / NAMES[1], 1).shape == (20,)


@pytest.mark.parametrize("harm", ["changed", "truncated", "an error page", "trailing bytes"])
def test_a_file_with_a_wrong_hash_is_refused(harm: str, mirror: Server, tmp_path: Path) -> None:
    path = mirror.folder / NAMES[2]  # the third: two good files must not stay behind
    good = path.read_bytes()
    content = bytearray(gzip.decompress(good))
    content[100] ^= 1
    path.write_bytes(
        {
            "changed": gzip.compress(bytes(content)),
            "truncated": good[: len(good) // 2],
            "an error page": b"<html>quota exceeded</html>",
            "trailing bytes": good + gzip.compress(b"more"),
        }[harm]
    )
    with pytest.raises(DataError, match=f"{NAMES[2]} of data set mnist cannot be downloaded") as e:
        fetch("mnist", tmp_path / "mnist")
    assert "sha256 is not" in str(e.value)
    assert len(mirror.asked) == 3
    assert left_in(tmp_path) == []


def test_a_file_that_unpacks_without_end_is_refused(
    mirror: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "_LARGEST_CONTENT", 1 << 20)
    (mirror.folder / NAMES[0]).write_bytes(gzip.compress(bytes(1 << 22)))
    with pytest.raises(DataError, match="sha256 is not"):
        fetch("mnist", tmp_path / "mnist")
    assert left_in(tmp_path) == []


def test_the_next_mirror_is_tried(
    mirror: Server, dead_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served_by(monkeypatch, "mnist", dead_url, mirror.url + "absent/", mirror.url)
    fetch("mnist", tmp_path / "mnist")
    assert left_in(tmp_path / "mnist") == sorted(NAMES)


def test_without_a_network_one_line_says_what_to_do(
    mirror: Server, dead_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served_by(monkeypatch, "mnist", dead_url, mirror.url + "absent/")
    root = tmp_path / "mnist"
    with pytest.raises(DataError) as caught:
        fetch("mnist", root)
    line = str(caught.value)
    assert "\n" not in line
    assert f"no connection at {urlsplit(dead_url).netloc}" in line
    assert f"HTTP 404 at {urlsplit(mirror.url).netloc}" in line
    assert str(root) in line
    assert "--data" in line
    assert left_in(tmp_path) == []


def test_a_failure_leaves_an_existing_folder_as_it_was(mirror: Server, tmp_path: Path) -> None:
    root = tmp_path / "mnist"
    root.mkdir()
    (root / NAMES[0]).write_bytes((mirror.folder / NAMES[0]).read_bytes())
    (mirror.folder / NAMES[3]).unlink()
    with pytest.raises(DataError, match="HTTP 404"):
        fetch("mnist", root)
    assert left_in(root) == [NAMES[0]]


def test_a_file_of_the_user_with_other_content_is_not_replaced(
    mirror: Server, tmp_path: Path
) -> None:
    root = tmp_path / "mnist"
    root.mkdir()
    (root / NAMES[0]).write_bytes(b"mine")
    with pytest.raises(DataError, match="other content"):
        fetch("mnist", root)
    assert (root / NAMES[0]).read_bytes() == b"mine"
    assert mirror.asked == []


def test_an_unwritable_place_is_one_line(mirror: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        fetch("mnist", tmp_path / "file" / "mnist")


def test_the_zips_of_nmnist_are_checked_by_their_md5(
    mirror: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def files(digest: str) -> list[RemoteFile]:
        return [RemoteFile("train.zip", (mirror.url + NAMES[1],), "md5", digest)]

    served = (mirror.folder / NAMES[1]).read_bytes()
    right = hashlib.md5(served, usedforsecurity=False).hexdigest()
    monkeypatch.setitem(source._SOURCES, "nmnist", Download("nmnist", lambda: files("0" * 32)))
    with pytest.raises(DataError, match="md5 is not"):
        fetch("nmnist", tmp_path / "nmnist")
    assert left_in(tmp_path) == []
    monkeypatch.setitem(source._SOURCES, "nmnist", Download("nmnist", lambda: files(right)))
    fetch("nmnist", tmp_path / "nmnist")
    assert (tmp_path / "nmnist" / "train.zip").read_bytes() == served


def test_nmnist_comes_from_where_tonic_gets_it() -> None:
    files = files_of("nmnist")
    assert [file.name for file in files] == ["train.zip", "test.zip"]
    assert all(file.urls[0].startswith("https://") and len(file.digest) == 32 for file in files)


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_the_hashes_are_those_of_the_real_files(name: str, shared_data: Path) -> None:
    files = files_of(name)
    assert len(files) == 4
    for file in files:
        assert file.matches(shared_data / name / file.name)
        assert not replace(file, digest="0" * 64).matches(shared_data / name / file.name)


@pytest.mark.parametrize("name", ["nmnist8", "imagenet"])
def test_a_data_set_without_a_download_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be downloaded"):
        fetch(name, tmp_path / name)
    assert left_in(tmp_path) == []


def test_the_archive_of_cifar10_is_fetched_checked_and_read_as_it_is(
    mirror: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = mirror.folder / cifar.ARCHIVE
    record = np.zeros((2, 3073), np.uint8).tobytes()
    with tarfile.open(archive, "w:gz") as packed:
        for name in (*cifar.BATCHES["train"], *cifar.BATCHES["test"]):
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = len(record)
            packed.addfile(member, io.BytesIO(record))
    served_by(monkeypatch, "cifar10", mirror.url)
    with pytest.raises(DataError, match="file-sha256 is not c4a38c50"):
        fetch("cifar10", tmp_path / "cifar10")
    assert left_in(tmp_path) == []
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    served_by(monkeypatch, "cifar10", mirror.url, digest=digest)
    fetch("cifar10", tmp_path / "cifar10")
    assert left_in(tmp_path / "cifar10") == [cifar.ARCHIVE]
    assert len(datasets.open_split("cifar10", tmp_path / "cifar10", "train")) == 10
    archive.unlink()  # already there: not asked for again
    fetch("cifar10", tmp_path / "cifar10")


@pytest.fixture
def gestures(mirror: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    """figshare as it answers programs: an empty page at tonic's addresses, the files at its API."""
    from tonic.datasets import DVSGesture

    for split, number in (("train", "1"), ("test", "2")):
        folder = f"ibmGesture{split.capitalize()}"
        with tarfile.open(mirror.folder / number, "w:gz") as packed:
            stream = io.BytesIO()
            np.save(stream, np.zeros((3, 4)))
            for name in (f"{folder}/user01_led/0.npy", "../outside", "notes.txt"):
                member = tarfile.TarInfo(name)
                member.size = len(stream.getvalue())
                packed.addfile(member, io.BytesIO(stream.getvalue()))
        digest = hashlib.md5((mirror.folder / number).read_bytes(), usedforsecurity=False)
        (mirror.folder / "browser").mkdir(exist_ok=True)
        (mirror.folder / "browser" / number).write_bytes(b"")
        monkeypatch.setattr(DVSGesture, f"{split}_url", f"{mirror.url}browser/{number}")
        monkeypatch.setattr(DVSGesture, f"{split}_md5", digest.hexdigest())
    monkeypatch.setattr("mpsl_train.data.sources.dvs_gesture.FIGSHARE", mirror.url)
    return mirror


def test_dvs_gesture_comes_from_the_address_for_programs(gestures: Server, tmp_path: Path) -> None:
    root = tmp_path / "data" / "dvs-gesture"
    fetch("dvs-gesture", root)
    assert gestures.asked == ["1", "2"]
    # Unpacked, without the archives, and without what lies outside their folders.
    assert left_in(root) == ["ibmGestureTest", "ibmGestureTrain"]
    assert left_in(root.parent) == ["dvs-gesture"]
    assert (root / "ibmGestureTrain" / "user01_led" / "0.npy").is_file()
    assert datasets.find("dvs-gesture", root) == root
    fetch("dvs-gesture", root)
    assert len(gestures.asked) == 2


def test_the_empty_page_that_tonic_gets_is_refused(gestures: Server, tmp_path: Path) -> None:
    (gestures.folder / "1").unlink()
    with pytest.raises(DataError, match=r"ibmGestureTrain\.tar\.gz of data set dvs-gesture") as e:
        fetch("dvs-gesture", tmp_path / "dvs-gesture")
    assert "HTTP 404" in str(e.value)
    assert "md5 is not" in str(e.value)
    assert left_in(tmp_path) == []


def test_the_published_address_is_turned_into_the_one_for_programs() -> None:
    addresses = [file.urls for file in files_of("dvs-gesture")]
    assert addresses[0][0] == "https://api.figshare.com/v2/file/download/38022171"
    assert addresses[1][0] == "https://api.figshare.com/v2/file/download/38020584"
