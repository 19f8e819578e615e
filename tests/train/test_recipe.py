"""Recipes are read strictly; what is wrong is said in one line."""

from __future__ import annotations

import hashlib
import shutil
import tomllib
from pathlib import Path

import pytest

from mpsl_runtime.errors import RecipeError
from mpsl_train.recipe import Recipe, find_recipe, load, parse, to_toml

MINIMAL = 'name = "a"\nnetwork = "10"\n[data]\ndataset = "mnist"\n'


@pytest.fixture
def minimal(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.toml"
    path.write_text(MINIMAL, encoding="utf-8")
    return path


def test_the_defaults_are_those_of_the_design(minimal: Path) -> None:
    recipe = load(minimal)
    assert recipe.mechanisms == ["stbp", "hebbian", "sbp"]
    assert (recipe.rules.cap, recipe.rules.eta_hat, recipe.rules.sign) == (0.25, 1.0, "+")
    assert (recipe.rules.delta, recipe.rules.coefficients) == ("l1", "learnable")
    assert (recipe.neuron.decay, recipe.neuron.reset) == (0.75, "subtract")
    assert (recipe.training.loss, recipe.training.checkpoint) == ("mse", "last")
    assert recipe.data.validation == 0.1


def test_neurons_may_have_no_leak_but_nothing_may_grow(minimal: Path) -> None:
    assert load(minimal, ["neuron.decay=1.0", "quantize=int8"]).neuron.decay == 1.0
    with pytest.raises(RecipeError, match=r"neuron\.decay"):
        load(minimal, ["neuron.decay=1.01"])


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("neuron.thresold=0.5", "'neuron.threshold'"),
        ("rules.eta=1", "'rules.eta_hat'"),
        ("training.learning_rat=1", "'training.learning_rate'"),
        ("epochs=3", "'training.epochs'"),
        ("mechanism=3", "'mechanisms'"),
        ("data.crop.left=3", "'data"),
    ],
)
def test_an_unknown_key_names_the_nearest_known_one(
    minimal: Path, override: str, named: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        load(minimal, [override])
    message = str(caught.value)
    assert named in message
    assert override.partition("=")[0] in message
    assert "\n" not in message


def test_an_unknown_key_in_the_file_names_the_file(minimal: Path) -> None:
    minimal.write_text(MINIMAL + "stpes = 3\n", encoding="utf-8")
    with pytest.raises(RecipeError, match=r"'data.stpes'.*'data.steps'.*recipe.toml"):
        load(minimal)


@pytest.mark.parametrize(
    ("override", "part"),
    [
        ("neuron.threshold=-1", "neuron.threshold"),
        ("neuron.threshold=nan", "neuron.threshold"),
        ("training.epochs=1.5", "training.epochs"),
        ("training.loss=hinge", "training.loss"),
        ("rules.coefficient_init=[1.0]", "coefficient_init"),
        ("mechanisms=stbp+stbp", "twice"),
        ("mechanisms=[]", "mechanisms"),
        ("data=3", "data"),
    ],
)
def test_a_wrong_value_names_its_key(minimal: Path, override: str, part: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load(minimal, [override])
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_overrides_are_toml_and_lists_survive_a_shell(minimal: Path) -> None:
    recipe = load(
        minimal,
        ["training.epochs=3", "name=b", "rules.sign=-", "mechanisms=[stbp, hebbian]",
         "training.learning_rate=1e-2", "augmentation.flip=true"],
    )  # fmt: skip
    assert (recipe.training.epochs, recipe.name, recipe.rules.sign) == (3, "b", "-")
    assert recipe.mechanisms == ["stbp", "hebbian"]
    assert recipe.training.learning_rate == 0.01
    assert recipe.augmentation.flip
    assert load(minimal, ['mechanisms=["stbp"]']).mechanisms == ["stbp"]
    assert load(minimal, ["mechanisms=stbp+sbp"]).mechanisms == ["stbp", "sbp"]
    with pytest.raises(RecipeError, match="key=value"):
        load(minimal, ["training.epochs"])


def test_the_complete_recipe_comes_back_from_its_own_text(minimal: Path, tmp_path: Path) -> None:
    recipe = load(
        minimal,
        ["data.crop=[1,2,3,4]", 'name="say \\"hi\\" \\\\ there"', "training.learning_rate=1e-12"],
    )
    path = tmp_path / "used.toml"
    path.write_text(recipe.text(), encoding="utf-8")
    again = load(path)
    assert again == recipe
    assert again.text() == recipe.text()
    assert recipe.hash() == hashlib.sha256(path.read_bytes()).hexdigest()
    fields = set(Recipe.model_fields) | {"crop", "flip", "threshold", "precision"}
    text = path.read_text("utf-8")
    assert all(field in text for field in fields)
    assert tomllib.loads(text)["data"]["crop"] == [1, 2, 3, 4]


def test_a_recipe_is_found_by_its_name_or_path(minimal: Path, tmp_path: Path) -> None:
    assert find_recipe(str(minimal)) == minimal
    assert find_recipe(str(tmp_path) + "/") == minimal
    assert find_recipe("dvs-digits").parts[-3:] == ("models", "dvs-digits", "recipe.toml")
    with pytest.raises(RecipeError, match="'nmnist'"):
        find_recipe("nmnst")
    with pytest.raises(RecipeError, match="no such recipe file"):
        find_recipe("nothing.toml")


def test_a_name_is_looked_for_in_one_place_after_the_other(
    minimal: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = [tmp_path / place for place in ("own", "packaged", "checkout", "here/models")]
    for place in places:
        (place / "tiny").mkdir(parents=True)
        shutil.copy(minimal, place / "tiny" / "recipe.toml")
    monkeypatch.setenv("MPSL_MODELS", str(places[0]))
    monkeypatch.setattr("mpsl_train.recipe.reading._PACKAGED", places[1])
    monkeypatch.setattr("mpsl_train.recipe.reading._CHECKOUT", places[2])
    monkeypatch.chdir(tmp_path / "here")
    for place in places:
        found = find_recipe("tiny")
        assert found.resolve() == place / "tiny" / "recipe.toml"
        found.unlink()
    with pytest.raises(RecipeError, match="no such recipe; got 'tiny'"):
        find_recipe("tiny")


def test_a_file_that_is_no_toml_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_bytes(b"\xff\xfe not toml")
    with pytest.raises(RecipeError, match="cannot be read"):
        load(path)


def test_a_wrong_value_names_the_option_it_came_from(minimal: Path) -> None:
    with pytest.raises(RecipeError, match=r"batch_size.*'abc'; in --set training.batch_size=abc"):
        load(minimal, ["training.batch_size=abc"])


def test_the_old_name_of_a_key_is_still_read(minimal: Path) -> None:
    minimal.write_text(MINIMAL + "[rules]\ntau_w = 30.0\n", encoding="utf-8")
    new = load(minimal)
    assert new.rules.tau_w_steps == load(minimal, ["rules.tau_w=30.0"]).rules.tau_w_steps == 30.0
    assert "tau_w_steps = 30.0" in new.text()
    assert "tau_w =" not in new.text()
    old = new.text().replace("tau_w_steps", "tau_w")
    assert parse(old, "an older run") == new
    minimal.write_text(MINIMAL + "[rules]\ntau_w = 30.0\ntau_w_steps = 30.0\n", encoding="utf-8")
    with pytest.raises(RecipeError, match=r"'rules.tau_w_steps' is there twice; got 'rules.tau_w'"):
        load(minimal)


def test_a_run_from_before_the_warm_up_was_a_key_had_none(minimal: Path) -> None:
    now = load(minimal)
    assert now.rules.warmup_epochs == 1
    assert parse(now.text(), "a run of today") == now
    without = "".join(
        line for line in now.text().splitlines(True) if line != "warmup_epochs = 1.0\n"
    )
    assert without.count("warmup_epochs") == now.text().count("warmup_epochs") - 2
    assert parse(without, "an older run").rules.warmup_epochs == 0
    assert load(minimal, ["method=mpsl"]).rules.warmup_epochs == 1


NINES = "9" * 5000


@pytest.mark.parametrize(
    "text",
    [
        MINIMAL + f"steps = {NINES}\n",
        MINIMAL + "steps = 0x" + "f" * 5000,
        MINIMAL + "steps = " + "9" * 30,
        MINIMAL + "crop = " + "[" * 3000 + "]" * 3000,
        MINIMAL + "crop = " + "[" * 200 + "]" * 200,
        MINIMAL + ".".join("a" * 2000) + " = 1",
        MINIMAL + "[neuron]\nthreshold = inf\n",
        MINIMAL + "[neuron]\nthreshold = 1e300\n",
        MINIMAL + "[rules]\neta_hat = -1e300\n",
        MINIMAL + "[rules]\ncoefficient_init = [nan]\n",
        MINIMAL.replace('"10"', "[1, 2]"),
        MINIMAL.replace('"10"', '"' + "1FC-" * 5000 + '10"'),
        MINIMAL.replace('name = "a"', 'name = "../../escaped"'),
        MINIMAL.replace('name = "a"', r'name = "\u001b[31m"'),
        MINIMAL.replace('[data]\ndataset = "mnist"', "data = [1]"),
        'method = "hgll"\n' + MINIMAL.replace('[data]\ndataset = "mnist"', "data = 3"),
        "method = 3\n" + MINIMAL,
        "mechanisms = [1, 2]\n" + MINIMAL,
        "plugins = [{a = 1}]\n" + MINIMAL,
        "rules = 1979-05-27\n" + MINIMAL,
        MINIMAL + "# " + "x" * (1 << 20),
    ],
)  # fmt: skip
def test_a_recipe_of_a_stranger_is_refused_in_one_short_line(text: str, minimal: Path) -> None:
    minimal.write_text(text, encoding="utf-8")
    with pytest.raises(RecipeError) as caught:
        load(minimal)
    assert len(str(caught.value)) < 400 + len(str(minimal))
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "override",
    [
        f"training.epochs={NINES}",
        "training.epochs=0x" + "f" * 5000,
        "training.learning_rate=inf",
        "data.crop=" + "[" * 3000 + "]" * 3000,
        "training.epochs=3\nnetwork = '5'",
        "a." * 5000 + "b=1",
        "name=\udcff",
        "name=a\x1b[31m",
        "name=a/b",
        "name=",
    ],
)
def test_an_option_of_a_stranger_is_refused_in_one_short_line(override: str, minimal: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        load(minimal, [override])
    assert len(str(caught.value)) < 600 + len(str(minimal))
    assert str(caught.value).isprintable()


def test_every_character_comes_back_from_the_text(tmp_path: Path) -> None:
    text = "".join(map(chr, (*range(1, 0x300), 0x1F600)))
    path = tmp_path / "used.toml"
    path.write_text(to_toml({"value": text, "list": [text, 'a"b\\']}), encoding="utf-8")
    found = tomllib.loads(path.read_bytes().decode("utf-8"))
    assert found == {"value": text, "list": [text, 'a"b\\']}
