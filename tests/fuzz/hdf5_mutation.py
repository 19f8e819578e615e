"""Damage to the structure of a model file: what HDF5 and NIR can say and a model must not.

Each function takes an open h5py file and changes it; what cannot be said through h5py is done to
the bytes afterwards: `alias_texts`, `many_heaps`.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from .mutation import NUMBERS, Random

Change = Callable[[Any, Random], None]
_MOST = 1 << 24  # bytes of an array that is read to be changed: others were only declared


def _values(random: Random) -> Any:
    """What no field should hold."""
    shape = tuple(int(size) for size in random.choice([0, 1, 2, 3, 7], random.integers(0, 6)))
    number = int(random.choice(np.array(NUMBERS, np.uint64)))
    kinds: list[Callable[[], Any]] = [
        lambda: np.uint64(number),
        lambda: -(number >> 1),
        lambda: float(random.choice([np.nan, np.inf, -np.inf, 1e300, 5e-324, -0.0, 0.5])),
        lambda: np.full(shape, random.choice([np.nan, np.inf, 1e39, -1.0, 0.0])),
        lambda: np.full(shape, number >> 2, np.int64),
        lambda: random.integers(-3, 4, shape).astype(random.choice(["i1", "f2", ">f8", "u4"])),
        lambda: np.ones(shape, bool),
        lambda: np.ones(shape, complex),
        lambda: np.ones(shape, np.longdouble),
        lambda: np.zeros(shape, [("a", "f4"), ("b", "S3")]),
        lambda: np.zeros(shape or (1,), "V5"),
        lambda: "".join(random.choice(list("\x1b\x07\n\u202eaΣ,0.5"), random.integers(0, 40))),
        lambda: "x" * int(random.choice([300, 70_000, 3_000_000])),
        lambda: "9" * 5000,
        lambda: "[" * 20_000,
        lambda: b"\xff\xfe",
        lambda: np.array([b"a", b"\xff"]),
        lambda: h5py.Empty("f4"),
        lambda: _one(["same", "valid", "LSTM", "NIRGraph", "Conv2d", "Flatten", "LIF"], random),
    ]
    return kinds[int(random.integers(len(kinds)))]()


def _sets(file: Any) -> list[str]:
    found: list[str] = []
    file.visititems(
        lambda name, item: found.append(name) if isinstance(item, h5py.Dataset) else None
    )
    return found


def _groups(file: Any) -> list[str]:
    found: list[str] = ["/"]
    file.visititems(lambda name, item: found.append(name) if isinstance(item, h5py.Group) else None)
    return found


def _one(names: list[str], random: Random) -> str:
    return names[int(random.integers(len(names)))]


def other_value(file: Any, random: Random) -> None:
    name = _one(_sets(file), random)
    del file[name]
    file[name] = _values(random)


def near_value(file: Any, random: Random) -> None:
    """The same type and shape, with one number that a network hates."""
    name = _one(_sets(file), random)
    if file[name].dtype.kind not in "iuf" or file[name].nbytes > _MOST:
        return other_value(file, random)
    value = file[name][()]
    if not isinstance(value, np.ndarray | np.generic) or value.dtype.kind not in "iuf":
        return other_value(file, random)
    value = np.array(value)
    numbers = [0, -1, 1, 2, 3, 255, 1 << 14, 1 << 20, 1 << 27, 1 << 31, np.nan, 1e38, 1e-38, -0.5]
    with np.errstate(all="ignore"):
        number = np.array(numbers[int(random.integers(len(numbers)))]).astype(value.dtype)
    if value.size:
        value.reshape(-1)[int(random.integers(value.size))] = number
    del file[name]
    file[name] = value
    return None


def other_metadata(file: Any, random: Random) -> None:
    group = file.require_group("node/metadata")
    name = _one([*group, "mpsl", "steps", "onset", "weight_grid"], random)
    if name in group:
        del group[name]
    group[name] = _values(random)


def remove(file: Any, random: Random) -> None:
    del file[_one([*_sets(file), *_groups(file)[1:]], random)]


def rename(file: Any, random: Random) -> None:
    source = _one([*_sets(file), *_groups(file)[1:]], random)
    names = ["x", "weigh", "λ", "\x1b[31m", "a" * 900, "a" * 2000, "..x", "é"]
    file.move(source, source.rpartition("/")[0] + "/" + _one(names, random))


def copy(file: Any, random: Random) -> None:
    file.copy(file[_one(_groups(file), random)], file[_one(_groups(file), random)], "copy")


def link(file: Any, random: Random) -> None:
    """One thing under two names, a cycle, or a link to somewhere."""
    target = file[_one([*_sets(file), *_groups(file)], random)]
    group = file[_one(_groups(file), random)]
    links = [target, h5py.SoftLink("/node"), h5py.ExternalLink("/etc/passwd", "/")]
    group["again"] = links[int(random.integers(3))]


def kind_of_node(file: Any, random: Random) -> None:
    node = file["node/nodes"][_one(list(file["node/nodes"]), random)]
    del node["type"]
    kinds = [
        "LIF",
        "IF",
        "Conv2d",
        "Affine",
        "Input",
        "Output",
        "Flatten",
        "SumPool2d",
        "NIRGraph",
        "CubaLI",
        "",
        "Σ",
    ]
    node["type"] = _one(kinds, random)


def other_edges(file: Any, random: Random) -> None:
    names = [*file["node/nodes"], "none", "input"]
    count = int(random.integers(0, 30))
    pairs = [[_one(names, random).encode(), _one(names, random).encode()] for _ in range(count)]
    del file["node/edges"]
    kind = random.integers(4)
    data: Any = pairs if kind else np.array(pairs, "S40") if pairs else np.zeros((0, 2))
    if kind == 3:
        data = [[name for pair in pairs for name in pair]]
    file["node"].create_dataset("edges", data=data if count else np.zeros((0, 2)))


def declare(file: Any, random: Random) -> None:
    """Data that is declared and never, or only in part, written."""
    name = _one(_sets(file), random)
    del file[name]
    shape = [(4_000_000,), (1 << 27,), (1 << 20, 1 << 20), (3, 3), (1 << 15, 2)][random.integers(5)]
    chunks = [None, (1,) * len(shape), (64,) * len(shape), shape][random.integers(4)]
    with suppress(ValueError, TypeError):
        made = file.create_dataset(
            name, shape, random.choice(["u1", "i8", "f4"]), fillvalue=7,
            chunks=None if chunks is None else tuple(map(min, chunks, shape)),
            compression=random.choice([None, "gzip"]) if chunks else None,
        )  # fmt: skip
        if random.random() < 0.3 and len(shape) == 1:
            made[:100] = 1


def inflate(file: Any, random: Random) -> None:
    """A chunk of zeros, a thousand times as large as its bytes; or of another size than it says."""
    name = _one(_sets(file), random)
    del file[name]
    size = int(random.choice([64, 1 << 16, 1 << 24, 1 << 27]))
    made = file.create_dataset(name, (size,), "u1", chunks=(size,), compression="gzip")
    wrong: list[Callable[[], bytes]] = [
        lambda: _zeros(size),
        lambda: _zeros(size)[:-5],
        lambda: _zeros(size + 1),
        lambda: _zeros(0),
        lambda: b"\x78\x9c",
        lambda: random.bytes(50),
        lambda: _zeros(1 << 26),
    ]
    made.id.write_direct_chunk((0,), wrong[int(random.integers(len(wrong)))]())


@cache
def _zeros(size: int) -> bytes:
    """So many zeros, packed: half a second for the largest."""
    return zlib.compress(bytes(size))


def deepen(file: Any, random: Random) -> None:
    depth = int(random.choice([3, 9, 13, 200]))
    file[_one(_groups(file), random)].create_group("/".join("d" * depth))


def crowd(file: Any, random: Random) -> None:
    """Many items, or many texts."""
    group = file[_one(_groups(file), random)]
    for index in range(int(random.choice([30, 300, 3000]))):
        if random.random() < 0.5:
            group.create_group(f"g{index}λ" if random.random() < 0.01 else f"g{index}")
        else:
            group[f"t{index}"] = "text"


def odd_form(file: Any, random: Random) -> None:
    """Filters, layouts and types that models do not use."""
    name = _one(_sets(file), random)
    del file[name]
    data = random.normal(size=(int(random.integers(1, 30)),)).astype("f4")
    forms: list[Callable[[], Any]] = [
        lambda: file.create_dataset(name, data=data, compression="lzf"),
        lambda: file.create_dataset(name, data=data, fletcher32=True),
        lambda: file.create_dataset(name, data=data, shuffle=True, compression="gzip"),
        lambda: file.create_dataset(name, data=data, chunks=(1 + len(data) // 3,)),
        lambda: file.create_dataset(name, data=data, maxshape=(None,)),
        lambda: file.create_dataset(name, (4,), "f4", external=[("/etc/passwd", 0, 16)]),
        lambda: file.create_dataset(name, (4,), h5py.vlen_dtype(np.int32)),
        lambda: file.create_dataset(name, (2,), h5py.enum_dtype({"A": 0, "B": 1})),
        lambda: file.create_dataset(name, data=file.ref, dtype=h5py.ref_dtype),
        lambda: file.__setitem__(name, np.dtype("f8")),
        lambda: file.create_dataset(name, (5, 2), h5py.string_dtype()),
        lambda: file.create_dataset(name, data=["λ" * 9] * 9, dtype=h5py.string_dtype()),
    ]
    forms[int(random.integers(len(forms)))]()


CHANGES: list[Change] = [
    other_value, other_value, near_value, near_value, near_value, other_metadata, other_metadata,
    remove, rename, copy, link, kind_of_node, other_edges, declare, inflate, deepen, crowd,
    odd_form,
]  # fmt: skip


def change(path: Path, random: Random) -> str:
    """Changes the model file at `path` in one or a few ways; which came first."""
    first = CHANGES[int(random.integers(len(CHANGES)))]
    with h5py.File(path, "a") as file:
        first(file, random)
        for _ in range(int(random.choice([0, 0, 0, 1, 2]))):
            # A change may have taken away what the next one wants to change.
            with suppress(
                LookupError, ValueError, TypeError, RuntimeError, OSError, AttributeError
            ):
                CHANGES[int(random.integers(len(CHANGES)))](file, random)
    return first.__name__


def alias_texts(content: bytearray, random: Random) -> bytes:
    """Every reference to a text becomes the first one, with another length."""
    at = content.find(b"GCOL")
    heap = at.to_bytes(8, "little")
    places = [p for p in range(4, len(content) - 16, 1) if content[p : p + 8] == heap]
    length = int(random.choice([1, 30, 1000, 1 << 20, (1 << 32) - 1])).to_bytes(4, "little")
    for place in places:
        content[place - 4 : place] = length
        content[place + 8 : place + 12] = (1).to_bytes(4, "little")
    return bytes(content)


def many_heaps(content: bytearray, random: Random) -> bytes:
    """A file full of heads of heaps, each as large as the rest: quadratic for who walks all."""
    number = int(random.choice([100, 5000, 40_000]))
    size = 16 * number
    heaps = b"".join(
        b"GCOL\x01\0\0\0" + (size - 16 * i).to_bytes(8, "little") for i in range(number)
    )
    return bytes(content) + heaps
