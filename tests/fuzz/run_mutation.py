"""Damage to the files of a run folder, as their own writers could have written it."""

from __future__ import annotations

import io
import json
import re
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from .mutation import BYTES, Random

ODD: list[Any] = [
    None, True, -1, 0, 1, 2**31, 2**63, 2**70, -(2**70), 1e300, 1e-300, 0.5, "", "x", "\x1b[31m",
    "a\nb", "\u202e", "nan", "9" * 5000, "x" * 70_000, [], {}, [[[]]], {"a": {"b": [1]}}, [1] * 99,
    "../../etc/passwd", float("nan"), float("inf"), 10**400,
]  # fmt: skip


def _one(values: list[Any], random: Random) -> Any:
    return values[int(random.integers(len(values)))]


def _places(value: Any, found: list[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    """Every container of a document with each of its keys."""
    if isinstance(value, dict | list):
        for key in list(value) if isinstance(value, dict) else range(len(value)):
            found.append((value, key))
            _places(value[key], found)
    return found


def odd_json(text: str, random: Random) -> str:
    """A value of a document becomes another, goes, or comes twice; or the text is none at all."""
    if random.random() < 0.1:
        wrong = ["", "{", "[" * 100_000, "{" * 5 + '"a":1', "nul", '{"a":1,"a":2}', "\ufeff{}", "1"]
        return str(_one([*wrong, "9" * 5000, '{"a":' * 3000], random))
    document = json.loads(text)
    for _ in range(int(random.integers(1, 3))):
        places = _places(document, [])
        if not places:
            break
        container, key = _one(places, random)
        if random.random() < 0.25:
            del container[key]
        elif random.random() < 0.2 and isinstance(container, dict):
            container[_one(["x", "", "\x1b", "format", "x" * 3000], random)] = _one(ODD, random)
        else:
            container[key] = _one(ODD, random)
    return json.dumps(document)


def report(content: bytes, random: Random) -> bytes:
    return odd_json(content.decode(), random).encode()


def recipe(content: bytes, random: Random) -> bytes:
    lines = content.decode().splitlines()
    values = ["nan", "-1", "0", "1e400", "9" * 5000, '""', '"\\u001b[31m"', "[]", "[[[[", "true",
              '"x"', "{}", "{a={b=1}}", "1979-05-27", '["stbp", "none"]', "inf", '"' + "1C3-" * 99,
              '"10"', "'''", "0x7fffffffffffffffff", "[" * 3000]  # fmt: skip
    for _ in range(int(random.integers(1, 3))):
        at = int(random.integers(len(lines)))
        way = random.random()
        if "=" in lines[at] and way < 0.7:
            lines[at] = lines[at].split("=")[0] + "= " + _one(values, random)
        elif way < 0.8:
            del lines[at]
        elif way < 0.9:
            lines.insert(at, _one(lines, random))
        else:
            odd = ["x = 1", "[x]", "[[x]]", "\0", "\ufeff", "é = 1", "a." * 3000 + "b = 1"]
            lines.insert(at, _one(odd, random))
    return "\n".join(lines).encode()


def metrics(content: bytes, random: Random) -> bytes:
    cells = re.split(r"([,\n])", content.decode())
    cells[2 * int(random.integers(len(cells) // 2))] = _one(
        ["", "x", "nan", "inf", "9" * 5000, "\0", '"', "\x1b", "-1"], random
    )
    return "".join(cells).encode()


def banks(content: bytes, random: Random) -> bytes:
    """safetensors: a header in JSON, its size before it, numbers behind it."""
    size = int.from_bytes(content[:8], "little")
    header, data = json.loads(content[8 : 8 + size]), content[8 + size :]
    description = "__metadata__"
    way = random.random()
    if way < 0.45 and isinstance(header.get(description), dict):
        about = header[description]
        key = _one(list(about), random)
        text = about[key]
        about[key] = odd_json(text, random) if text[:1] in "{[" else _one(ODD, random)
    elif way < 0.8:
        name = _one([key for key in header if key != description], random)
        field = _one(["dtype", "shape", "data_offsets"], random)
        types = ["F64", "I8", "BOOL", "U64", "F16", "BF16", "X"]
        numbers = [[0], [], [-1, 1], [2**40, 2**40], [0, 2**62], [2**70, 0], [8, 4], "x", None, 1.5]
        header[name][field] = _one(types if field == "dtype" else numbers, random)
        if random.random() < 0.2:
            del header[name]
    else:
        numbers_ = np.frombuffer(data, np.float32).copy()
        wrong = [np.nan, np.inf, 1e38, -1e38, 1e-45, 0.0]
        numbers_[random.integers(0, len(numbers_), 3)] = _one(wrong, random)
        data = numbers_.tobytes()
    text = json.dumps(header).encode()
    stated = len(text) if random.random() < 0.95 else int(_one([0, 2**40, 2**63, 7], random))
    return struct.pack("<Q", stated) + text + data


def _arrays(content: bytes) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        for name in archive.namelist():
            yield name, archive.read(name)


def _npy(array: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=True)
    return stream.getvalue()


def evaluation(content: bytes, random: Random) -> bytes:
    """An archive of arrays: of another type or shape, with other numbers, or packed otherwise."""
    members = dict(_arrays(content))
    name = _one(list(members), random)
    array = np.load(io.BytesIO(members[name]))
    with np.errstate(all="ignore"):
        wrong = [
            array.astype("f8" if array.dtype.kind in "iub" else "S3"), array.reshape(-1),
            array[:0] if array.ndim else array, array[..., None], array.astype("S9"),
            np.array(odd_json(str(array), random) if name == "record.npy" else "\x1b[31m"),
            np.array([None, {}], object), np.full(array.shape, 9), np.full(array.shape, np.nan), 7,
            np.zeros((2, 3), [("a", "f4")]), np.ones(array.shape, complex),
            np.ones(array.shape, "u1"),
        ]  # fmt: skip
    members[name] = _npy(_one(wrong, random))
    if random.random() < 0.15:
        del members[name]
    if random.random() < 0.2:
        header = members.get(name, b"")[:128]
        members[name] = header.replace(b"'shape': (", b"'shape': (" + b"9" * 4000 + b",") + bytes(8)
    stream = io.BytesIO()
    method = _one([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA], random)
    with zipfile.ZipFile(stream, "w", method) as archive:
        for key, value in members.items():
            archive.writestr(key, value)
    result = bytearray(stream.getvalue())
    if random.random() < 0.2:  # as if it were encrypted
        for mark, flags in ((b"PK\1\2", 8), (b"PK\3\4", 6)):
            at = result.find(mark)
            result[at + flags] |= 1
    return bytes(result)


def checkpoint(content: bytes, random: Random) -> bytes:
    """What torch saved: a value becomes another, a tensor gets another shape, type or number."""
    import torch

    state = torch.load(io.BytesIO(content), weights_only=True)
    for _ in range(int(random.integers(1, 3))):
        container, key = _one(_places(state, []), random)
        value = container[key]
        if isinstance(value, torch.Tensor) and random.random() < 0.8:
            wrong = [
                value.reshape(-1)[:1], value.to(torch.float64), value[None], torch.zeros(3), 1.0,
                torch.full_like(value, float("nan")) if value.is_floating_point() else value[None],
                value.to(torch.int8), torch.zeros(0), value.to(torch.bool),
            ]  # fmt: skip
            container[key] = _one(wrong, random)
        elif random.random() < 0.2:
            del container[key]
        else:
            container[key] = _one(ODD[:-1], random)
    stream = io.BytesIO()
    torch.save(state, stream)
    return stream.getvalue()


PARTS: dict[str, Callable[[bytes, Random], bytes]] = {
    "recipe.toml": recipe,
    "banks.safetensors": banks,
    "evaluation.npz": evaluation,
    "report.json": report,
    "metrics.csv": metrics,
    "last.ckpt": checkpoint,
}


def damage(path: Path, random: Random) -> str:
    """Damages a file of a run folder; what was done."""
    content = path.read_bytes()
    if random.random() < 0.3:
        function = _one(list(BYTES), random)
        path.write_bytes(function(bytearray(content), random))
        return str(function.__name__)
    path.write_bytes(PARTS[path.name](content, random))
    return "as-written"
