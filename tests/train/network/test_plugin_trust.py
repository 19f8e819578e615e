"""Code of a stranger's recipe or run folder runs only where the user names it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

import mpsl_train
from mpsl_runtime import cli
from mpsl_runtime.errors import RecipeError
from mpsl_train.experiments.runs import load_run
from mpsl_train.experiments.sweep import sweep
from mpsl_train.network.plasticity import find_rule
from mpsl_train.network.plugins import load_plugin
from mpsl_train.recipe import load, plugins
from mpsl_train.training.training import train

PLAIN = '''
from pathlib import Path
from mpsl_train import Rule, register

Path({marker!r}).touch()


@register("plain")
class Plain(Rule):
    """ΔW = η·C."""

    shared = True

    def update(self, pre, post):
        return 1e-3 * pre.correlate(post.activity)
'''
FEW = ("mechanisms=stbp+plain", "training.epochs=1", "network=12FC-10")


@pytest.fixture(autouse=True)
def _nobody_has_named_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins, "_ALLOWED", {})
    monkeypatch.setattr(plugins, "_CONTENTS", {})


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    """There as soon as the plug-in has run."""
    return tmp_path / "it-has-run"


@pytest.fixture
def plain(tmp_path: Path, marker: Path) -> Path:
    path = tmp_path / "plain.py"
    path.write_text(PLAIN.format(marker=str(marker)), encoding="utf-8")
    return path


@pytest.fixture
def run(
    plain: Path, marker: Path, small_recipe: Path, small_data: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:  # fmt: skip
    """The run folder of a stranger, whose plug-in nobody here has named."""
    recipe = load(small_recipe, FEW, [str(plain)])
    train(recipe, tmp_path / "run", data=small_data, device="cpu")
    monkeypatch.setattr(plugins, "_ALLOWED", {})
    monkeypatch.setattr(plugins, "_CONTENTS", {})
    marker.unlink()
    return tmp_path / "run"


def test_the_run_has_a_copy_and_its_hash_and_no_path_of_this_machine(
    run: Path, plain: Path, small_recipe: Path, tmp_path: Path
) -> None:
    assert (run / "plugins" / "plain.py").read_bytes() == plain.read_bytes()
    text = (run / "recipe.toml").read_text("utf-8")
    assert 'plugins = ["plugins/plain.py#sha256=' in text
    assert str(tmp_path) not in text
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.copy(plain, elsewhere / "plain.py")
    same = load(small_recipe, FEW, [str(elsewhere / "plain.py")])
    assert same.text() == text
    (elsewhere / "plain.py").write_text(plain.read_text("utf-8") + "# another\n", encoding="utf-8")
    assert load(small_recipe, FEW, [str(elsewhere / "plain.py")]).hash() != same.hash()
    assert load(run / "recipe.toml").text() == text


def test_a_stranger_s_run_runs_no_code_until_its_plug_in_is_named(
    run: Path, plain: Path, marker: Path, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match=r"nobody has named here.*expected --plugins plain.py"):
        load_run(run, rules=True)
    assert not marker.exists()
    other = tmp_path / "other.py"
    other.write_text("from mpsl_train import Rule\n", encoding="utf-8")
    plugins.allow(str(other))
    with pytest.raises(RecipeError, match="nobody has named"):
        load_run(run)
    assert not marker.exists()
    plain.rename(tmp_path / "read-and-renamed.py")
    plugins.allow(str(tmp_path / "read-and-renamed.py"))
    assert load_run(run, rules=True).network.mechanisms == ("stbp", "plain")
    assert marker.exists()


def test_a_copy_that_was_changed_is_refused_even_where_it_is_named(run: Path, marker: Path) -> None:
    copy = run / "plugins" / "plain.py"
    copy.write_text(copy.read_text("utf-8") + "# changed\n", encoding="utf-8")
    plugins.allow(str(copy))
    with pytest.raises(RecipeError, match="plug-in is not the one that the recipe names"):
        load_run(run)
    assert not marker.exists()


def test_the_verbs_take_the_plug_in_from_the_command_line_alone(
    run: Path, plain: Path, marker: Path, small_data: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    out = str(tmp_path / "features.png")
    for verb in (["features"], ["robustness"]):
        with pytest.raises(SystemExit) as stopped:
            cli.main([*verb, str(run), "--data", str(small_data), "--out", out])
        assert stopped.value.code == 2
        complaint = capsys.readouterr().err
        assert complaint.count("\n") == 1
        assert "--plugins plain.py" in complaint
        assert not marker.exists()
    arguments = ["--data", str(small_data), "--out", out, "--plugins", str(plain)]
    with pytest.raises(SystemExit) as done:
        cli.main(["features", str(run), *arguments])
    assert not done.value.code, capsys.readouterr().err
    assert marker.exists()


def test_a_recipe_alone_does_not_run_code(
    plain: Path, marker: Path, small_recipe: Path, small_data: Path, tmp_path: Path
) -> None:
    small_recipe.write_text('plugins = ["plain.py"]\n' + small_recipe.read_text("utf-8"))
    recipe = load(small_recipe, FEW)
    with pytest.raises(RecipeError, match="nobody has named"):
        train(recipe, tmp_path / "run", data=small_data, device="cpu")
    assert not marker.exists()
    assert not (tmp_path / "run").exists()
    named = load(small_recipe, FEW, [str(plain)])
    assert named == recipe  # listed and named: once
    assert train(named, tmp_path / "run", data=small_data, device="cpu").report["accuracy"] >= 0


def test_the_workers_of_a_sweep_know_what_was_named(
    plain: Path, small_recipe: Path, small_data: Path, tmp_path: Path
) -> None:
    recipes = {"a": load(small_recipe, FEW, [str(plain)])}
    outcomes = sweep(tmp_path / "sweep", recipes, data=small_data, device="cpu", workers=1)
    assert outcomes["a"].state == "finished", outcomes["a"].error
    assert (tmp_path / "sweep" / "runs" / "a" / "plugins" / "plain.py").is_file()


@pytest.mark.parametrize("name", ["hebbian", "stbp"])
def test_a_plug_in_does_not_take_the_name_of_a_built_in_rule(name: str, tmp_path: Path) -> None:
    before = find_rule(name)
    path = tmp_path / "mine.py"
    path.write_text(
        "from mpsl_train import Rule, register\n"
        f"@register({name!r})\nclass {before.__name__}(Rule):\n    pass\n",
        encoding="utf-8",
    )
    with pytest.raises(RecipeError, match=f"two rules have the same name; got '{name}'"):
        load_plugin(str(path))
    assert find_rule(name) is before


def test_the_newer_version_of_a_plug_in_takes_the_place_of_the_older(
    plain: Path, tmp_path: Path
) -> None:
    load_plugin(str(plain))
    first = find_rule("plain")
    plain.write_text(plain.read_text("utf-8").replace("1e-3", "2e-3"), encoding="utf-8")
    load_plugin(str(plain))
    assert find_rule("plain") is not first
    other = tmp_path / "other.py"
    other.write_text(plain.read_text("utf-8"), encoding="utf-8")
    with pytest.raises(RecipeError, match="same name"):
        load_plugin(str(other))


@pytest.mark.parametrize(
    "entry",
    ["pipe.py", "absent.py", "large.py", "folder.py", "a b.py", "../\x1b.py", "no-module", "",
     "os.path; import this", "absent_module_of_ours", "plain.py#sha256=" + "0" * 64],
)  # fmt: skip
def test_what_is_no_plug_in_is_refused_in_one_line(
    entry: str, plain: Path, marker: Path, small_recipe: Path, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "pipe.py")
    (tmp_path / "large.py").write_bytes(b"#" * ((1 << 20) + 1))
    (tmp_path / "folder.py").mkdir()
    with pytest.raises(RecipeError) as caught:
        load(small_recipe, [], [str(tmp_path / entry) if ".py" in entry else entry])
    assert str(caught.value).isprintable()
    assert not marker.exists()


def test_the_names_of_a_plug_in_are_there_without_more() -> None:
    assert set(mpsl_train.__all__) == {"Rule", "register"}
    assert issubclass(find_rule("stbp"), mpsl_train.Rule)
    with pytest.raises(AttributeError, match="rule"):
        _ = mpsl_train.rule
