"""What is kept comes back as it was; what is damaged or a stranger's is one DataError."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpsl_runtime.errors import DataError
from mpsl_runtime.kept import from_bytes, to_bytes

TREE: dict[str, Any] = {
    "whole": 7,
    "number": 0.1,
    "nothing": None,
    "yes": True,
    "word": "ü\n",
    "blob": b"\x00\xff",
    "counts": {"lost on the way": 3},
    "list": [1, 2, 3],
    "inner": {"a": np.arange(6, dtype=np.int64).reshape(2, 3), "b": np.zeros(0, np.float32)},
    "each": [{"x": np.ones(2, np.uint16)}, {"x": np.zeros(1, np.uint16)}],
}


def test_values_and_arrays_come_back_as_they_were() -> None:
    kept = from_bytes(to_bytes(TREE), "s")
    assert kept.integer("whole") == 7
    assert kept.number("number") == 0.1
    assert kept.number("whole") == 7.0
    assert not kept.is_there("nothing")
    assert not kept.is_there("absent")
    assert kept.boolean("yes")
    assert kept.text("word") == "ü\n"
    assert kept.blob("blob") == b"\x00\xff"
    assert kept.counter("counts") == {"lost on the way": 3}
    assert kept.integers("list") == [1, 2, 3]
    inner = kept.inner("inner").array("a", np.int64, (2, None))
    assert inner.tolist() == [[0, 1, 2], [3, 4, 5]]
    inner[0, 0] = 9  # it is the caller's own
    assert [item.array("x", np.uint16).tolist() for item in kept.each("each")] == [[1, 1], [0]]


@pytest.mark.parametrize(
    "ask",
    [
        lambda kept: kept.integer("absent"),
        lambda kept: kept.integer("yes"),
        lambda kept: kept.integer("number"),
        lambda kept: kept.integer("whole", 0, 6),
        lambda kept: kept.boolean("whole"),
        lambda kept: kept.text("whole"),
        lambda kept: kept.number("yes"),
        lambda kept: kept.number("word"),
        lambda kept: kept.array("whole", np.int64),
        lambda kept: kept.inner("inner").array("a", np.int32, (2, 3)),
        lambda kept: kept.inner("inner").array("a", np.int64, (6,)),
        lambda kept: kept.inner("inner").array("a", np.int64, (3, 2)),
        lambda kept: kept.inner("list"),
        lambda kept: [*kept.each("list")],
        lambda kept: kept.integers("each"),
        lambda kept: kept.integers("list", 2),
        lambda kept: kept.counter("inner"),
        lambda kept: kept.size("list"),
    ],
)
def test_a_value_that_is_not_what_is_asked_for_is_one_error(ask: Any) -> None:
    with pytest.raises(DataError, match=r"state is damaged; got no \w+ that can be; in s"):
        ask(from_bytes(to_bytes(TREE), "s"))


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(st.data())
def test_damaged_bytes_are_refused(data: st.DataObject) -> None:
    content = bytearray(to_bytes(TREE))
    if data.draw(st.booleans()):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place] ^= data.draw(st.integers(1, 255))
    else:
        del content[data.draw(st.integers(0, len(content) - 1)) :]
    with pytest.raises(DataError):
        from_bytes(bytes(content), "s")


def crafted(text: bytes, arrays: bytes = b"", version: int = 1) -> bytes:
    content = struct.pack("<8sII", b"mpslkept", version, len(text)) + text + arrays
    return content + struct.pack("<I", zlib.crc32(content))


@pytest.mark.parametrize(
    "content",
    [
        crafted(b"[]"),
        crafted(b"7"),
        crafted(b"{"),
        crafted(b'{"a": ' + b"[" * 100_000),
        crafted(b'{"a": ' + b"[" * 30 + b"]" * 30 + b"}"),
        crafted(b"{}", b"left"),
        crafted(b'{"a": {"@": ["<f4", [1]]}}', b"\0\0\0"),
        crafted(b'{"a": {"@": ["<f4", [4000000000, 4000000000]]}}'),
        crafted(b'{"a": {"@": ["<f4", [-1]]}}'),
        crafted(b'{"a": {"@": ["<f4", [true]]}}', b"\0\0\0\0"),
        crafted(b'{"a": {"@": ["|O", [1]]}}', b"\0" * 8),
        crafted(b'{"a": {"@": ["<f4", [1, 1, 1, 1]]}}', b"\0\0\0\0"),
        crafted(b'{"a": {"@": 5}}'),
        crafted(b'{"a": ' + b"9" * 5000 + b"}"),
        crafted(b"{}", version=2),
        b"",
        b"mpslkept",
    ],
)
def test_what_a_stranger_made_up_is_refused(content: bytes) -> None:
    with pytest.raises(DataError, match="state"):
        from_bytes(content, "s")


def test_what_is_not_kept_is_a_fault_of_the_program() -> None:
    with pytest.raises(TypeError, match="object is not kept"):
        to_bytes({"a": object()})
    with pytest.raises(TypeError, match="arrays of complex128"):
        to_bytes({"a": np.zeros(1, complex)})
