"""Every verb of `mpsl` and every option, given what nobody means: one line and exit 2, at once."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from mpsl_runtime import cli

NUMBERS = ["nan", "-inf", "-1e30", "1" + "0" * 30, "9" * 5000, "0x10", "1,5", "", "٣"]
WORDS = [
    "", "\udcff\udcfe", "\x1b[31mred", "x" * 5000, "a\nb", "/dev/null/x", "udp://a..b:3",
    "udp://localhost:99999999999", "a." * 2000 + "=1", "nan", "%s%n{}",
]  # fmt: skip
# Lists what is there, wherever it looks.
NEVER_WRONG = {("data", "list")}


def verbs(group: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, verb in group.commands.items():
        if getattr(verb, "commands", None):
            yield from verbs(verb, (*words, name))
        else:
            yield (*words, name), verb


VERBS = dict(verbs(typer.main.get_command(cli.build())))


def is_argument(parameter: Any) -> bool:
    return not parameter.opts[0].startswith("-")


def _options() -> Iterator[tuple[tuple[str, ...], str, list[str]]]:
    """Verb, option, and the values to try."""
    for words, verb in VERBS.items():
        for option in verb.params if words not in NEVER_WRONG else ():
            if is_argument(option) or option.opts[0] == "--help" or getattr(option, "is_flag", 0):
                continue
            kind = str(option.type_descriptor.annotation)
            yield words, option.opts[0], NUMBERS if "int" in kind or "float" in kind else WORDS


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty folder without data sets."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("MPSL_DATA", raising=False)


def refused(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    start = time.monotonic()
    with pytest.raises(SystemExit) as done:
        cli.main(words)
    out, err = capsys.readouterr()
    about = (words, done.value.code, err)
    assert done.value.code == 2, about
    assert err.startswith("mpsl: "), about
    assert err.count("\n") == 1, about
    assert err[:-1].isprintable(), about
    assert len(err) < 330, about
    assert out == "", about
    assert time.monotonic() - start < 60, about  # torch may be imported meanwhile


def arguments(verb: Any) -> list[str]:
    """So many words as the verb needs; no file has such a name."""
    return ["none.none" for parameter in verb.params if is_argument(parameter)]


@pytest.mark.parametrize(("words", "option", "values"), list(_options()), ids=lambda value: "")
def test_no_option_takes_what_nobody_means(
    words: tuple[str, ...], option: str, values: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    for value in values:
        refused(capsys, [*words, *arguments(VERBS[words]), option, value])


@pytest.mark.parametrize("words", [words for words in VERBS if arguments(VERBS[words])], ids=str)
def test_no_argument_takes_what_nobody_means(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    (tmp_path / "noise.nir").write_bytes(bytes(range(256)) * 9)
    number = len(arguments(VERBS[words]))
    for value in [*WORDS, "empty", "folder", "noise.nir", "noise.nir/x"]:
        if value.startswith("-"):
            continue
        refused(capsys, [*words, *[value] * number])
