"""HDF5 as h5py writes it is read as h5py reads it, bit for bit; the rest is refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from mpsl_runtime.errors import ModelError
from mpsl_runtime.hdf5.tree import Tree, read_tree

NUMBERS = ["i1", "u1", "<i2", ">i4", "<i8", ">u8", "<f2", ">f4", "<f8", "?"]
Random = np.random.Generator


def read(path: Path) -> Tree:
    return read_tree(path, error=ModelError, noun="model file")


def refusal(path: Path) -> str:
    with pytest.raises(ModelError) as caught:
        read(path)
    return str(caught.value)


def by_h5py(group: Any) -> dict[str, Any]:
    result = {}
    for name, item in group.items():
        if isinstance(item, h5py.Group):
            result[name] = by_h5py(item)
            continue
        value = item[()]
        if isinstance(value, bytes):
            value = value.decode()
        elif isinstance(value, np.ndarray) and value.dtype.kind in "OS":
            texts = [text.decode() for text in value.reshape(-1)]
            value = np.array(texts, object).reshape(value.shape)
        result[name] = value
    return result


def assert_equal(ours: Any, theirs: Any, where: str = "") -> None:
    if isinstance(theirs, dict):
        assert list(ours) == sorted(theirs, key=str.encode), where
        for name in theirs:
            assert_equal(ours[name], theirs[name], f"{where}/{name}")
    elif isinstance(theirs, str):
        assert ours == theirs, where
    else:
        assert type(ours) is type(theirs), where
        assert ours.dtype == theirs.dtype.newbyteorder("="), where
        np.testing.assert_array_equal(ours, theirs, where)


def numbers(random: Random, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    dtype = np.dtype(random.choice(NUMBERS))
    if dtype.kind in "?b":
        return random.integers(0, 2, shape).astype(bool)
    return np.asarray(random.normal(0, 50, shape) * (random.random(shape) < 0.7)).astype(dtype)


def fill(group: Any, random: Random, depth: int) -> None:
    for index in range(int(random.integers(1, 20))):
        name = "".join(random.choice(list("abcλ ./0-é"), 6)).replace("/", "") + str(index)
        kind = random.integers(6)
        shape = tuple(int(size) for size in random.integers(0, 9, random.integers(0, 5)))
        if kind == 0 and depth:
            fill(group.create_group(name), random, depth - 1)
        elif kind == 1:
            group[name] = "".join(random.choice(list("xyzΣ\n"), random.integers(0, 99)))
        elif kind == 2:
            texts = [b"", b"a", b"text"] * 8
            group.create_dataset(name, data=texts, dtype=random.choice([None, h5py.string_dtype()]))
        elif kind == 3 or 0 in shape or not shape:
            group[name] = numbers(random, shape)
        else:
            chunks = tuple(int(random.integers(1, size + 1)) for size in shape)
            group.create_dataset(
                name, data=numbers(random, shape), chunks=chunks if random.random() < 0.8 else True,
                compression=random.choice([None, "gzip"]), shuffle=bool(random.integers(2)),
            )  # fmt: skip


@pytest.mark.parametrize("library", ["earliest", "v108", "v110", "v112", "latest"])
@pytest.mark.parametrize("seed", range(8))
def test_random_trees_are_read_as_h5py_reads_them(tmp_path: Path, seed: int, library: str) -> None:
    path, random = tmp_path / "tree.h5", np.random.default_rng(seed)
    with h5py.File(path, "w", libver=library, track_order=seed % 4 == 3) as file:
        fill(file, random, 2)
    with h5py.File(path, "r") as file:
        assert_equal(read(path), by_h5py(file))


@pytest.mark.parametrize("library", ["earliest", "latest"])
def test_large_groups_and_many_chunks_have_trees_of_several_levels(
    tmp_path: Path, library: str
) -> None:
    path, random = tmp_path / "wide.h5", np.random.default_rng(0)
    with h5py.File(path, "w", libver=library) as file:
        for index in random.permutation(9000):
            file.create_group(f"group/{index}λ" + "x" * int(random.integers(40)))
        for compression in (None, "gzip"):
            data = random.normal(size=(300, 70))
            file.create_dataset(
                f"data {compression}", data=data, chunks=(3, 5), compression=compression
            )
    with h5py.File(path, "r") as file:
        assert_equal(read(path), by_h5py(file))


def test_compact_data_in_the_header_is_read(tmp_path: Path) -> None:
    path, values = tmp_path / "compact.h5", np.arange(6, dtype="f4").reshape(2, 3)
    with h5py.File(path, "w") as file:
        properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        properties.set_layout(h5py.h5d.COMPACT)
        space = h5py.h5s.create_simple((2, 3))
        made = h5py.h5d.create(file.id, b"a", h5py.h5t.IEEE_F32LE, space, properties)
        made.write(h5py.h5s.ALL, h5py.h5s.ALL, values)
    assert_equal(read(path), {"a": values})


def test_an_incompressible_chunk_keeps_its_filter_mask(tmp_path: Path) -> None:
    path, values = tmp_path / "mask.h5", np.arange(8, dtype="u1")
    with h5py.File(path, "w") as file:
        made = file.create_dataset("a", (8,), "u1", chunks=(8,), compression="gzip")
        made.id.write_direct_chunk((0,), values.tobytes(), filter_mask=1)
    assert_equal(read(path), {"a": values})


def test_arrays_are_writable_and_in_this_machines_byte_order(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["plain"] = np.arange(5, dtype=">f4")
        file.create_dataset("packed", data=np.arange(5.0), compression="gzip")
    for value in read(path).values():
        assert isinstance(value, np.ndarray)
        assert value.flags.writeable
        assert value.dtype.isnative


@pytest.mark.parametrize("library", ["v110", "latest"])
def test_data_that_can_grow_is_refused_by_name(tmp_path: Path, library: str) -> None:
    path = tmp_path / "new.h5"
    for most in ((None,), (None, None)):
        with h5py.File(path, "w", libver=library) as file:
            file.create_dataset("x", data=np.ones([4] * len(most)), chunks=True, maxshape=most)
        assert "data set that can grow is not read; got chunks in an " in refusal(path)


def test_names_that_are_not_ascii_are_read_in_the_usual_format(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        for index in range(30):
            file[f"λ{index}"] = index
    assert b"FRHP" in path.read_bytes()
    with h5py.File(path, "r") as file:
        assert_equal(read(path), by_h5py(file))


def odd(file: Any, name: str) -> None:
    """Puts data of an unusual type or form into a file."""
    compound = np.zeros(3, [("a", "f4"), ("b", "i4")])
    makers = {
        "compound": lambda: file.create_dataset("x", data=compound),
        "complex": lambda: file.create_dataset("x", data=np.ones(3, complex)),
        "reference": lambda: file.create_dataset("x", data=file.ref, dtype=h5py.ref_dtype),
        "opaque": lambda: file.create_dataset("x", data=np.zeros(2, "V7")),
        "array": lambda: file.create_dataset("x", (2,), np.dtype(("f4", (3,)))),
        "lists": lambda: file.create_dataset("x", (2,), h5py.vlen_dtype(np.int32)),
        "enum": lambda: file.create_dataset("x", (2,), h5py.enum_dtype({"A": 0, "B": 2})),
        "long double": lambda: file.create_dataset("x", data=np.ones(2, np.longdouble)),
        "null": lambda: file.create_dataset("x", data=h5py.Empty("f4")),
        "type": lambda: file.__setitem__("x", np.dtype("f8")),
        "lzf": lambda: file.create_dataset("x", data=np.ones(9), compression="lzf"),
        "fletcher32": lambda: file.create_dataset("x", data=np.ones(9), fletcher32=True),
        "scaleoffset": lambda: file.create_dataset("x", data=np.ones(9, int), scaleoffset=3),
        "nine dimensions": lambda: file.create_dataset("x", data=np.ones((1,) * 9)),
    }
    makers[name]()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("compound", "neither numbers nor text; got compound"),
        ("complex", "neither numbers nor text"),
        ("reference", "neither numbers nor text; got reference"),
        ("opaque", "neither numbers nor text; got opaque"),
        ("array", "neither numbers nor text; got array"),
        ("lists", "neither numbers nor text"),
        ("enum", "neither numbers nor text"),
        ("long double", "neither numbers nor text"),
        ("null", "empty data set"),
        ("type", "neither group nor data set"),
        ("lzf", "compression is not read; got lzf; expected gzip"),
        ("fletcher32", "compression is not read; got fletcher32"),
        ("scaleoffset", "compression is not read; got scaleoffset"),
        ("nine dimensions", "too many dimensions; got 9"),
    ],
)
def test_what_is_not_read_is_refused_by_name(tmp_path: Path, name: str, said: str) -> None:
    path = tmp_path / "odd.h5"
    with h5py.File(path, "w") as file:
        odd(file, name)
    message = refusal(path)
    assert said in message
    assert f"in /x of {path}" in message


def test_links_and_data_elsewhere_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "links.h5"

    def soft(file: Any) -> None:
        file["x"] = h5py.SoftLink("/a")

    def external(file: Any) -> None:
        file["x"] = h5py.ExternalLink("/etc/hostname", "/")

    def hard(file: Any) -> None:
        file["x"] = file["a"]

    def itself(file: Any) -> None:
        file["a/x"] = file["/"]

    def outside(file: Any) -> None:
        file.create_dataset("x", (4,), "f4", external=[("/etc/hostname", 0, 16)])

    def virtual(file: Any) -> None:
        layout = h5py.VirtualLayout((4,), "f4")
        layout[:] = h5py.VirtualSource("/etc/hostname", "x", (4,))
        file.create_virtual_dataset("x", layout)

    def shared(file: Any) -> None:
        file["z"] = np.dtype("f8")
        file.create_dataset("x", (2,), file["z"])

    said = ["links are not read"] * 4 + ["another file"] * 2 + ["shared"]
    makers = (soft, external, hard, itself, outside, virtual, shared)
    for library in ("earliest", "v108", "latest"):
        for make, words in zip(makers, said, strict=True):
            with h5py.File(path, "w", libver=library) as file:
                file.create_group("a")
                make(file)
            assert words in refusal(path), (make.__name__, library)
