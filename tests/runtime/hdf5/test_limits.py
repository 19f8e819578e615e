"""A small file that asks for much is refused before the work is done or the memory taken."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from mpsl_runtime.errors import ModelError
from mpsl_runtime.hdf5.source import Limits
from mpsl_runtime.hdf5.tree import Tree, read_tree


def read(path: Path, **limits: int) -> Tree:
    return read_tree(path, error=ModelError, noun="model file", limits=Limits(**limits))


def refusal(path: Path, **limits: int) -> str:
    with pytest.raises(ModelError) as caught:
        read(path, **limits)
    return str(caught.value)


def chunks_of_one_element(file: Any) -> None:
    file.create_dataset("x", (4_000_000,), "u1", chunks=(1,))


def fill_values(file: Any) -> None:
    file.create_dataset("x", (1 << 27,), "i8", chunks=(64,), fillvalue=7)


def never_written(file: Any) -> None:
    file.create_dataset("x", (1 << 20,), "f4")


def chunks_never_written(file: Any) -> None:
    made = file.create_dataset("x", (1 << 20,), "f4", chunks=(1 << 10,))
    made[:1024] = 1


def a_chunk_much_larger_than_its_data(file: Any) -> None:
    made = file.create_dataset("x", (3,), "f4", chunks=(1 << 29,), maxshape=(None,))
    made.id.write_direct_chunk((0,), b"x")


def zeros_in_gzip(file: Any, sets: int, size: int) -> None:
    packed = zlib.compress(bytes(size))
    for index in range(sets):
        made = file.create_dataset(
            str(index), (size,), "u1", chunks=(size,), compression="gzip", fillvalue=1
        )
        made.id.write_direct_chunk((0,), packed)


def ratio_of_a_thousand(file: Any) -> None:
    zeros_in_gzip(file, 5, 1 << 26)


def text_named_ten_thousand_times(file: Any) -> None:
    made = file.create_dataset("x", (10_000, 2), h5py.string_dtype())
    made[0, 0] = "x" * 500_000


def alias_text(path: Path) -> None:
    """Every reference of `x` becomes the first."""
    content = bytearray(path.read_bytes())
    with h5py.File(path, "r") as file:
        start, size = file["x"].id.get_offset(), file["x"].id.get_storage_size()
    content[start : start + size] = bytes(content[start : start + 16]) * (size // 16)
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (chunks_of_one_element, "too many chunks of data; got 4000000"),
        (fill_values, "declares too much data, in bytes; got 1073741824"),
        (never_written, "data was never written"),
        (chunks_never_written, "data was never written; got 1023 of 1024 chunks"),
        (a_chunk_much_larger_than_its_data, "declares too much data"),
        (text_named_ten_thousand_times, "too much text"),
        (ratio_of_a_thousand, "declares too much data"),
    ],
)
def test_a_bomb_is_refused_at_once(tmp_path: Path, make: Callable[[Any], None], said: str) -> None:
    path = tmp_path / "bomb.h5"
    with h5py.File(path, "w") as file:
        make(file)
    if make is text_named_ten_thousand_times:
        alias_text(path)
    assert path.stat().st_size < 1 << 22
    start = time.process_time()
    assert said in refusal(path)
    assert time.process_time() - start < 10


CHILD = """
import sys
from pathlib import Path
from mpsl_runtime.errors import ModelError
from mpsl_runtime.hdf5.tree import read_tree
try:
    read_tree(Path(sys.argv[1]), error=ModelError, noun="model file")
except ModelError as error:
    print(error)
# Not ru_maxrss: a child begins with that of the process that forked it.
status = Path("/proc/self/status").read_text()
print(int(status.split("VmHWM:")[1].split()[0]) >> 10)
"""


def test_what_is_just_within_the_limits_takes_no_more_memory_than_it_says(tmp_path: Path) -> None:
    path = tmp_path / "full.h5"
    with h5py.File(path, "w") as file:
        zeros_in_gzip(file, 7, 1 << 25)
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(path)], capture_output=True, text=True, check=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (1 << 31, 1 << 31)),
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}, timeout=60,
    )  # fmt: skip
    (peak_mib,) = done.stdout.split()
    assert 224 < int(peak_mib) < 450


def test_every_limit_holds(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        for index in range(10):
            file[f"g/{index}"] = np.arange(8.0)
            file[f"t/{index}"] = "text"
    read(path)
    for name, few in {"file_bytes": 100, "data_bytes": 639, "text_bytes": 49, "items": 21,
                      "reads": 100, "structure_bytes": 9000}.items():  # fmt: skip
        assert "; expected ≤ " in refusal(path, **{name: few}), name
    assert "nested too deeply" in refusal(path, depth=0)


def test_a_compressed_chunk_gives_exactly_what_it_must(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    whole = zlib.compress(bytes(range(100)))
    wrong = {
        "short": zlib.compress(bytes(99)),
        "long": zlib.compress(bytes(101)),
        "bomb": zlib.compress(bytes(50_000_000)),
        "cut": whole[:-6],
        "broken": whole[:10] + b"\xff\xff\xff" + whole[13:],
        "text": b"not compressed at all",
    }
    for name, data in {"right": whole, **wrong}.items():
        with h5py.File(path, "w") as file:
            made = file.create_dataset("x", (100,), "u1", chunks=(100,), compression="gzip")
            made.id.write_direct_chunk((0,), data)
        if name == "right":
            assert read(path)["x"].tolist() == list(range(100))  # type: ignore[union-attr]
        else:
            assert "damaged model file" in refusal(path), name


def test_a_tree_that_contains_itself_ends(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        for index in range(500):
            file[str(index)] = index
    content = bytearray(path.read_bytes())
    nodes = [at for at in range(0, len(content) - 4, 8) if content[at : at + 4] == b"TREE"]
    inner = next(at for at in nodes if content[at + 5] > 0)
    content[inner + 32 : inner + 40] = inner.to_bytes(8, "little")
    path.write_bytes(content)
    assert "met twice" in refusal(path)


def test_long_headers_and_names_count(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        for index in range(40):
            file.create_group(f"g{index}").attrs["about"] = "x" * 2000
    read(path)
    assert "takes too long to read, in pieces" in refusal(path, reads=150)
    assert "has too much structure, in bytes" in refusal(path, structure_bytes=10_000)


def test_a_file_without_read_permission_is_not_called_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.h5"
    path.write_bytes(b"x")

    def refuse(*_: object, **__: object) -> int:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("mpsl_runtime.hdf5.source.os.open", refuse)
    assert refusal(path) == f"cannot read model file; got Permission denied; in {path}"


@pytest.mark.parametrize(
    ("name", "said"),
    [("none.h5", "no such model file"), (".", "got a folder"), ("a\0b", "null byte"),
     ("x" * 300, "File name too long"), ("file/x", "no such model file")],
)  # fmt: skip
def test_a_path_that_is_no_file_is_one_line(tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / "file").write_bytes(b"")
    assert said in refusal(tmp_path / name)


def test_a_pipe_and_a_device_are_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert "a device or a pipe" in refusal(tmp_path / "pipe")
    assert "a device or a pipe" in refusal(Path("/dev/zero"))


def test_a_file_that_shrinks_while_it_is_read_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["x"] = np.arange(100.0)
    pread = os.pread
    monkeypatch.setattr(
        "mpsl_runtime.hdf5.source.os.pread", lambda file, size, at: pread(file, size - 1, at)
    )
    assert "became shorter" in refusal(path)
