"""What NIR cannot say: metadata of the graph and the nodes, of this version and of the first."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from mpsl_runtime.inspection import describe
from mpsl_runtime.model.graph import encode_neuron, load_plan
from mpsl_runtime.model.metadata import upgraded

from .graphs import DT_S, chain, f32, file_refusal, lif, ours, plan, refusal


@pytest.mark.parametrize(
    ("key", "value"),
    [("decay", 1.01), ("decay", np.nan), ("threshold", 0.0), ("threshold", np.inf), ("dt_s", -1.0)],
)
def test_metadata_out_of_range_is_refused(key: str, value: float) -> None:
    node = ours(3)
    node.metadata[key] = value
    assert "neuron metadata is out of range" in refusal(chain((3,), node, out=(3,)))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("key", "value"),
    [("threshold", 1e40), ("threshold", 1e-42), ("dt_s", 1e38), ("dt_s", 1e-42)],
)
def test_metadata_that_float32_does_not_hold_are_refused(key: str, value: float) -> None:
    node = ours(3)
    node.metadata[key] = value
    assert "neuron metadata is out of range" in refusal(chain((3,), node, out=(3,)))


@pytest.mark.filterwarnings("error")
def test_neurons_whose_numbers_lie_beyond_every_float_are_refused() -> None:
    tiny = ours(3)
    tiny.tau, tiny.metadata["dt_s"] = np.full(3, 5e-324), 1.0
    assert "shorter than a step" in refusal(chain((3,), tiny, out=(3,)))
    slow = ours(3)
    slow.tau, slow.v_threshold = np.full(3, 3e38), np.full(3, 3e38)
    assert "beyond float32" in refusal(chain((3,), slow, out=(3,)))


def test_incomplete_metadata_is_refused() -> None:
    node = ours(3)
    del node.metadata["decay"]
    assert "metadata lacks 'decay'" in refusal(chain((3,), node, out=(3,)))


def test_graph_metadata_that_contradicts_the_graph_is_refused(model_file: Path) -> None:
    with h5py.File(model_file, "a") as target:
        del target["node/metadata/classes"]
        target["node/metadata/classes"] = "0,1"
    assert "2 class names" in file_refusal(model_file)


def test_metadata_for_another_sensor_is_refused(model_file: Path) -> None:
    with h5py.File(model_file, "a") as target:
        del target["node/metadata/sensor_width"]
        target["node/metadata/sensor_width"] = 20
    assert "metadata does not fit the graph" in file_refusal(model_file)


def test_metadata_gives_the_length_of_a_step(model_file: Path) -> None:
    result = load_plan(model_file)
    assert result.metadata is not None
    assert result.metadata.class_names == ("0", "1", "2")


U64 = np.uint64(2**64 - 1)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("steps", 10**7, "'steps' is out of range; got 10000000; expected 1 … 100000"),
        ("steps", U64, "'steps' is out of range; got 18446744073709551615"),
        ("steps", 0, "'steps' is out of range"),
        ("steps", 5.0, "'steps' has the wrong type; got 5.0; expected int"),
        ("step_us", U64, "'step_us' is out of range"),
        ("step_us", -1, "'step_us' is out of range"),
        ("downsample", 0, "'downsample' is out of range"),
        ("sensor_width", 2**40, "'sensor_width' is out of range"),
        ("mpsl", -3, "'mpsl' is out of range"),
        ("input_grid", np.nan, "'input_grid' is out of range; got nan"),
        ("input_grid", 0.0, "'input_grid' is out of range"),
        ("input_grid", 1e300, "'input_grid' is out of range"),
        ("input_max", 2**40, "'input_max' is out of range"),
        ("input_max", -1, "'input_max' is out of range"),
        ("dt_s", np.inf, "'dt_s' is out of range"),
        ("dt_s", np.ones(3), "'dt_s' has the wrong type"),
        ("crop", "0,0,3000000000,3000000000", "'crop' cannot be read"),
        ("crop", "0,0,12", "'crop' cannot be read"),
        ("crop", "a,b,c,d", "'crop' cannot be read"),
        ("crop", "0,0,-1,1", "'crop' cannot be read"),
        ("crop", "5,5,12,10", "crop"),
        ("image_mean", "nan", "'image_mean' cannot be read"),
        ("image_std", "1e999", "'image_std' cannot be read"),
        ("image_std", "0.1,", "'image_std' cannot be read"),
        ("classes", "\x1b[31mred,\x07,2", r"'classes' is no plain text; got \x1b[31mred,\x07,2"),
        ("classes", "a\nb,1,2", "'classes' is no plain text"),
        ("dataset", "\u202emnist", r"'dataset' is no plain text; got \u202emnist"),
        ("network", "9" * 70_000, "'network' is no plain text"),
        ("coding", "COUNT", "'coding' is not known; got 'COUNT'; expected count or binary"),
        ("reset", 1, None),
    ],
)
def test_every_value_of_the_graph_has_its_bounds(
    model_file: Path, key: str, value: object, said: str | None
) -> None:
    with h5py.File(model_file, "a") as target:
        metadata = target["node/metadata"]
        if key in metadata:
            del metadata[key]
        metadata[key] = value
    if said is None:  # what is not known is left alone
        assert load_plan(model_file).metadata is not None
        return
    message = file_refusal(model_file)
    assert said in message
    assert "Error" not in message


@pytest.mark.parametrize("name", ["classes", "steps", "crop"])
def test_a_value_that_is_a_group_is_refused(model_file: Path, name: str) -> None:
    with h5py.File(model_file, "a") as target:
        del target[f"node/metadata/{name}"]
        target.create_group(f"node/metadata/{name}/deeper")
    assert f"'{name}' has the wrong type" in file_refusal(model_file)


# ---- version 1: `dt`; version 2: `dt_s` ---------------------------------------------------------


def as_version_1(path: Path) -> None:
    """Writes a file's metadata as the first version did."""
    with h5py.File(path, "a") as target:
        places = [target["node/metadata"], *(node for node in target["node/nodes"].values())]
        del target["node/metadata/mpsl"]
        target["node/metadata/mpsl"] = 1
        for place in places:
            place = place if "dt_s" in place else place.get("metadata", {})
            if "dt_s" in place:
                place["dt"] = place["dt_s"][()]
                del place["dt_s"]


def test_a_file_of_version_1_is_read_as_one_of_version_2(model_file: Path) -> None:
    new = load_plan(model_file)
    as_version_1(model_file)
    with h5py.File(model_file) as written:
        assert "dt" in written["node/metadata"]
        assert "dt_s" not in written["node/metadata"]
        assert "dt_s" not in written["node/nodes/n03_lif/metadata"]
    old = load_plan(model_file)
    assert old.metadata == new.metadata
    assert old.metadata is not None
    assert (old.metadata.mpsl, old.metadata.dt_s) == (2, DT_S)
    for mine, theirs in zip(old.nodes, new.nodes, strict=True):
        for key, value in vars(mine).items():
            np.testing.assert_array_equal(value, getattr(theirs, key))


def test_what_was_read_as_version_1_is_written_as_version_2(model_file: Path) -> None:
    as_version_1(model_file)
    metadata = load_plan(model_file).metadata
    assert metadata is not None
    written = metadata.to_mapping()
    assert (written["mpsl"], written["dt_s"]) == (2, DT_S)
    assert "dt" not in written


def test_inspect_shows_the_version_that_the_file_has(model_file: Path) -> None:
    assert describe(model_file)["metadata"]["mpsl"] == 2
    as_version_1(model_file)
    shown = describe(model_file)["metadata"]
    assert (shown["mpsl"], shown["dt_s"]) == (1, DT_S)


def test_every_published_model_is_of_version_1_and_loads() -> None:
    folder = Path(__file__).resolve().parents[3] / "models"
    if not folder.is_dir():
        pytest.skip("not in a checkout")
    found = sorted(folder.glob("*/model.nir"))
    assert found
    for path in found:
        metadata = load_plan(path).metadata
        assert metadata is not None
        assert metadata.dt_s == 1e-4


def test_a_version_that_is_not_known_yet_is_refused_before_its_keys_are(model_file: Path) -> None:
    with h5py.File(model_file, "a") as target:
        del target["node/metadata/mpsl"], target["node/metadata/dt_s"]
        target["node/metadata/mpsl"] = 3
    assert "model was written by a newer mpsl; got encoding 3" in file_refusal(model_file)


def test_a_version_that_is_text_is_refused(model_file: Path) -> None:
    with h5py.File(model_file, "a") as target:
        del target["node/metadata/mpsl"]
        target["node/metadata/mpsl"] = "1"
    assert "metadata 'mpsl' has the wrong type" in file_refusal(model_file)


def test_metadata_of_onnx_is_text_and_is_brought_up_as_text() -> None:
    assert upgraded({"mpsl": "1", "dt": "0.0001"}) == {"mpsl": "2", "dt_s": "0.0001"}
    assert upgraded({"mpsl": "2", "dt_s": "0.0001"}) == {"mpsl": "2", "dt_s": "0.0001"}
    assert upgraded({"reset": "zero"}) == {"reset": "zero"}


# ---- V_th and ρ ---------------------------------------------------------------------------------


def test_the_plan_carries_threshold_and_decay_as_they_were_trained() -> None:
    neuron = plan(chain((3,), ours(3, threshold=0.3, decay=0.9), out=(3,))).nodes[0]
    assert (neuron.V_th, neuron.rho) == (0.3, 0.9)
    assert float(np.float32(0.3)) != 0.3


def test_of_foreign_neurons_and_of_changed_ones_no_training_is_known() -> None:
    foreign = plan(chain((3,), lif(3), out=(3,))).nodes[0]
    assert (foreign.V_th, foreign.rho) == (None, None)
    changed = encode_neuron(1.0, 0.75, (3,), DT_S)["tau"] * np.float32(2)
    neuron = plan(chain((3,), ours(3, tau=changed), out=(3,))).nodes[0]
    assert (neuron.V_th, neuron.rho) == (None, None)


def test_another_threshold_is_one_for_the_array_and_for_what_was_trained() -> None:
    before = plan(chain((3,), ours(3, threshold=0.3), out=(3,))).nodes[0]
    after = before.with_threshold(0.5)
    np.testing.assert_array_equal(after.threshold, f32(3, value=0.5))
    assert (after.V_th, after.rho) == (0.5, before.rho)
    np.testing.assert_array_equal(before.threshold, f32(3, value=0.3))
