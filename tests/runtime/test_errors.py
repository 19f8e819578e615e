"""A message is one printable line of bounded length, whatever a stranger's file holds."""

from __future__ import annotations

import pytest

from mpsl_runtime.errors import LONGEST_MESSAGE, MpslError, plain


@pytest.mark.parametrize(
    "got",
    ["y" * 200_000, 10**6000, [0] * 100_000, b"z" * 5000, "one\ntwo\r\n three"],
    ids=["text", "number", "list", "bytes", "lines"],
)
def test_a_message_is_one_short_line_and_keeps_what_and_where(got: object) -> None:
    text = str(MpslError("weight is wrong", got=got, expected="less", where="node 'a' of /x/b.nir"))
    assert len(text) <= LONGEST_MESSAGE
    assert text.startswith("weight is wrong; got ")
    assert text.endswith("; expected less; in node 'a' of /x/b.nir")
    assert "\n" not in text


def test_every_part_may_be_too_long_and_the_file_name_stays() -> None:
    parts = {"got": "g" * 900, "expected": "e" * 900, "where": "/folder" * 300 + "/model.nir"}
    text = str(MpslError("w" * 900, **parts))
    assert len(text) == LONGEST_MESSAGE
    assert text.endswith("/model.nir")
    assert [text.count(f"; {word} ") for word in ("got", "expected", "in")] == [1, 1, 1]


def test_what_is_not_printable_is_escaped_and_what_is_stays() -> None:
    assert plain("\x1b[31mred\x9b0m\x07\n") == r"\x1b[31mred\x9b0m\x07\n"
    assert plain("a\u202eb\u2028c\u200bd") == r"a\u202eb\u2028c\u200bd"
    assert plain(b"na\xffme".decode("utf-8", "surrogateescape")) == r"na\xffme"
    assert plain("\ud800") == r"\ud800"
    assert plain("é Σ λ 字 ≥ …") == "é Σ λ 字 ≥ …"
    assert plain(plain("\x1b")) == plain("\x1b")


def test_a_message_with_a_strangers_name_cannot_move_the_cursor() -> None:
    text = str(MpslError("no such class", got="\x1b[2J\u202e", where="\udcff.nir"))
    assert text == r"no such class; got \x1b[2J\u202e; in \xff.nir"
