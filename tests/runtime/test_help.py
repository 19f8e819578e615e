"""The help of `mpsl`: quick, its verbs by what they are for, and what add-ons bring."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import typer

from mpsl_runtime import cli
from mpsl_runtime.purposes import Purpose

Run = Callable[..., tuple[int, str, str]]


def test_help_is_quick_and_groups_the_verbs_by_what_they_are_for() -> None:
    command = [sys.executable, "-c", "from mpsl_runtime.cli import main; main(['--help'])"]
    seconds = []
    for _ in range(3):
        before = os.times()
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        after = os.times()
        # Of the processor: others may use it at the same time.
        seconds.append(sum(after[2:4]) - sum(before[2:4]))
    assert done.returncode == 0
    assert done.stderr == ""
    text = done.stdout
    assert text.index("Prove and study it:") < text.index("inspect")
    assert text.index("Run it on events:") < text.index("  run ") < text.index("  replay ")
    assert min(seconds) < 0.4


def headings(text: str) -> dict[str, list[str]]:
    """Of a help page: the verbs under each heading."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line.endswith(":") and not line.startswith((" ", "Options")):
            found[line[:-1]] = []
        elif found and re.match(r"  \w+ {2,}\w", line):
            found[list(found)[-1]].append(line.split()[0])
    return found


def test_every_verb_that_is_installed_says_what_it_is_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    found = headings(capsys.readouterr().out)
    assert set(found) <= {str(purpose) for purpose in Purpose}
    assert found["Run it on events"][:2] == ["run", "replay"]
    assert {"inspect", "bench"} <= set(found["Prove and study it"])


def test_an_add_on_may_name_a_purpose_of_its_own_and_forget_to(
    mpsl: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nothing() -> None:
        """Does nothing."""

    def register(app: typer.Typer) -> None:
        app.command("paint", rich_help_panel="Look at it")(nothing)
        app.command("tune", rich_help_panel=Purpose.MAKE)(nothing)
        app.command("stray")(nothing)

    class AddOn:
        name, dist = "painter", None

        def load(self) -> Callable[[typer.Typer], None]:
            return register

    monkeypatch.setattr(cli, "entry_points", lambda group: [AddOn()])
    found = headings(mpsl("--help")[1])
    assert list(found) == [*Purpose, "Look at it", "More"]
    assert found["Make a model"] == ["import", "tune"]
    assert (found["Look at it"], found["More"]) == (["paint"], ["stray"])


def test_every_verb_has_an_example_in_its_help(mpsl: Run) -> None:
    for verb in ("run", "replay", "inspect"):
        code, out, _ = mpsl(verb, "--help")
        assert code == 0
        assert f"Example: mpsl {verb}" in " ".join(out.split())


def test_version_is_that_of_the_package(mpsl: Run) -> None:
    import mpsl_runtime

    assert mpsl("--version") == (0, f"mpsl {mpsl_runtime.__version__}\n", "")


def test_no_words_at_all_show_the_help(mpsl: Run) -> None:
    code, out, _ = mpsl()
    assert code == 0
    assert "Usage: mpsl" in out


def test_an_add_on_that_cannot_be_loaded_does_not_take_the_others_with_it(
    mpsl: Run, model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken:
        name = "broken"
        dist = None

        def load(self) -> None:
            raise ImportError("no module\nnamed x")

    monkeypatch.setattr(cli, "entry_points", lambda group: [Broken()])
    code, out, err = mpsl("inspect", model_file)
    assert code == 0
    assert "n02_fc" in out
    assert err == "mpsl: add-on 'broken' cannot be loaded: no module named x\n"
