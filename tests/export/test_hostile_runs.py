"""Run folders of strangers: whatever stands in them, one line and exit code 2."""

from __future__ import annotations

import io
import json
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

from mpsl_export import evaluation
from mpsl_export.export import export
from mpsl_runtime.errors import RunError

Copy = Callable[[Any], Any]
Command = Callable[..., tuple[int, str, str]]
DEEP = "[" * 100_000 + "]" * 100_000
LONG = "9" * 5_000


def _one_line(result: tuple[int, str, str], where: str) -> None:
    code, out, err = result
    assert (code, out) == (2, ""), err
    assert err.count("\n") == 1
    assert err.startswith("mpsl: ")
    assert "Traceback" not in err
    assert "fault in mpsl itself" not in err
    assert len(err) < 400
    assert all(c.isprintable() for c in err.rstrip("\n"))
    assert where in err


def _banks(run: Any, description: str) -> None:
    (run.path / "banks.safetensors").write_bytes(save(run.tensors, {"mpsl": description}))


def _described(run: Any, layer: dict[str, Any] | None = None, **changes: Any) -> str:
    layers = [dict(entry) for entry in run.description["layers"]]
    layers[0].update(layer or {})
    return json.dumps({**run.description, "layers": layers, **changes})


# What stands in the description of the banks; MARK is put where a number was.
DESCRIPTIONS: dict[str, Callable[[Any], str]] = {
    "deep": lambda run: DEEP,
    "deep inside": lambda run: _described(run, network="MARK").replace(
        '"MARK"', DEEP[99_900:100_100]
    ),
    "a long number": lambda run: _described(run, {"pool_before": "MARK"}).replace('"MARK"', LONG),
    "not a number": lambda run: _described(run, {"threshold": float("nan")}),
    "an infinite threshold": lambda run: _described(run, {"threshold": float("inf")}),
    "beyond float64": lambda run: _described(run, {"threshold": "MARK"}).replace('"MARK"', "1e999"),
    "beyond float32": lambda run: _described(run, {"threshold": 1e39}),
    "below float32": lambda run: _described(run, {"threshold": 1e-44}),
    "a decay that float32 makes 1": lambda run: _described(run, {"decay": 1 - 1e-12}),
    "a huge population": lambda run: _described(run, {"neurons": [8, 2**24, 2**24]}),
    "a huge input": lambda run: _described(run, input_shape=[2, 2**20, 2**20]),
    "a huge stride": lambda run: _described(run, {"stride": [2**40, 1]}),
    "a huge pool": lambda run: _described(run, {"pool_before": 2**30}),
    "sizes that are truth": lambda run: _described(run, {"stride": [True, True]}),
    "layers that are text": lambda run: _described(run, layers="L00"),
    "a layer that is a number": lambda run: _described(run, layers=[7]),
    "a kind that is a list": lambda run: _described(run, {"kind": ["conv"]}),
    "mechanisms that are a number": lambda run: _described(run, {"mechanisms": 3}),
    "a scale beyond float64": lambda run: _described(
        run, {"scale": {"exponent": "MARK", "threshold": 9, "step": 0.1}}
    ).replace('"MARK"', "1e999"),
    "half a character": lambda run: _described(run, network="MARK").replace("MARK", "\\ud800"),
    "a model that is text": lambda run: _described(run, model="nmnist8"),
    "negative batch normalisation": lambda run: _described(run, {"batchnorm_eps": -1.0}),
}


@pytest.mark.parametrize("what", DESCRIPTIONS)
def test_banks_with_a_description_of_a_stranger_are_one_line(
    event_run: Any, copied: Copy, mpsl: Command, what: str
) -> None:
    run = copied(event_run)
    _banks(run, DESCRIPTIONS[what](run))
    for line in (["export", run.path, "--format", "onnx"], ["inspect", run.path]):
        _one_line(mpsl(*line), "banks.safetensors")
    assert [path.name for path in run.path.iterdir() if "model" in path.name] == []


def test_a_header_that_is_deep_or_long_is_one_line(
    event_run: Any, copied: Copy, mpsl: Command
) -> None:
    run = copied(event_run)
    for text in (DEEP, '{"__metadata__": ' + DEEP + "}", '{"a": ' + LONG + "}", "[1]", "null"):
        content = struct.pack("<Q", len(text)) + text.encode()
        (run.path / "banks.safetensors").write_bytes(content)
        _one_line(mpsl("export", run.path, "--format", "nir"), "banks.safetensors")


def test_weights_that_overflow_when_they_are_merged_are_one_line(
    event_run: Any, copied: Copy, mpsl: Command
) -> None:
    run = copied(event_run)
    run.tensors["L01.W1"][:] = 3e38
    run.tensors["L01.bn.var"][:] = 0
    run.write(run.path)
    _one_line(mpsl("export", run.path, "--format", "nir"), "n04_conv")


def _archive(run: Any) -> dict[str, bytes]:
    with zipfile.ZipFile(run.path / "evaluation.npz") as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def _npy(header: str, data: bytes = b"") -> bytes:
    text = header.encode().ljust(118) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data


def _array(values: np.ndarray) -> bytes:
    content = io.BytesIO()
    np.save(content, values, allow_pickle=True)
    return content.getvalue()


# A member of the archive, and what stands there instead.
MEMBERS: dict[str, tuple[str, bytes]] = {
    "an object": ("labels.npy", _array(np.array([{"a": 1}], dtype=object))),
    "a shape beyond the data": (
        "labels.npy", _npy("{'descr': '<i8', 'fortran_order': False, 'shape': (100000000000,), }")
    ),
    "a negative shape": (
        "labels.npy", _npy("{'descr': '<i8', 'fortran_order': False, 'shape': (-1,), }")
    ),
    "a header that is code": ("labels.npy", _npy("__import__('os').system('true')")),
    "a header that is deep": ("labels.npy", _npy("(" * 100)),
    "a header of another type": ("labels.npy", _npy("[1, 2]")),
    "a type of no size": (
        "ids.npy", _npy("{'descr': '<U0', 'fortran_order': False, 'shape': (24,), }")
    ),
    "a newer format": ("labels.npy", b"\x93NUMPY\x09\x00" + bytes(100)),
    "no array": ("spikes.npy", b"hello"),
    "nothing": ("spikes.npy", b""),
    "a deep record": ("record.npy", _array(np.array(DEEP))),
    "a long number": ("record.npy", _array(np.array('{"accuracy": ' + LONG + "}"))),
    "a record of numbers": ("record.npy", _array(np.array(7))),
    "many records": ("record.npy", _array(np.array(["{}", "{}"]))),
    "probes of numbers": ("probe_L00.npy", _array(np.zeros((8, 5, 289)))),
    "probe ids of numbers": ("probe_ids.npy", _array(np.arange(8))),
    "ids of numbers": ("ids.npy", _array(np.arange(24))),
    "scores that are infinite": ("scores.npy", _array(np.full((24, 8), np.inf, np.float32))),
    "labels that are no class": ("labels.npy", _array(np.full(24, -1))),
    "predictions beyond int64": ("predictions.npy", _array(np.full(24, 2**64 - 1, np.uint64))),
    "spikes beyond one": ("spikes.npy", _array(np.full((24, 5, 8), 7, np.uint8))),
}  # fmt: skip


@pytest.mark.parametrize("what", MEMBERS)
def test_a_record_with_a_member_of_a_stranger_is_one_line(
    event_run: Any, copied: Copy, mpsl: Command, what: str
) -> None:
    run = copied(event_run)
    export(run.path, "nir")
    members = _archive(run)
    name, content = MEMBERS[what]
    members[name] = content
    with zipfile.ZipFile(run.path / "evaluation.npz", "w") as archive:
        for key, value in members.items():
            archive.writestr(key, value)
    _one_line(mpsl("verify", run.path, "--data", run.data), "evaluation.npz")
    if name != "ids.npy":  # whose samples nobody compares with a data set
        _one_line(mpsl("inspect", run.path), "evaluation.npz")


def _patched(content: bytes, offset: int, value: int) -> bytes:
    """Every header of a zip archive, local and central, with another number at `offset` (of the
    local one)."""
    data = bytearray(content)
    for signature, shift in ((b"PK\x03\x04", 0), (b"PK\x01\x02", 2)):
        at = data.find(signature)
        while at >= 0:
            struct.pack_into("<H", data, at + offset + shift, value)
            at = data.find(signature, at + 4)
    return bytes(data)


@pytest.mark.parametrize("what", ["encrypted", "another compression", "half", "a bomb", "no zip"])
def test_an_archive_of_a_stranger_is_one_line(
    event_run: Any, copied: Copy, mpsl: Command, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = copied(event_run)
    path = run.path / "evaluation.npz"
    content = path.read_bytes()
    if what == "encrypted":
        path.write_bytes(_patched(content, 6, 1))
    elif what == "another compression":
        path.write_bytes(_patched(content, 8, 97))
    elif what == "half":
        path.write_bytes(content[: len(content) // 2])
    elif what == "no zip":
        path.write_bytes(b"\0" * 1000)
    else:
        monkeypatch.setattr(evaluation, "LARGEST_RECORD_BYTES", 1 << 20)
        with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("more.npy", bytes(2 << 20))
        assert path.stat().st_size < 100_000
    _one_line(mpsl("verify", run.path, "--data", run.data), "evaluation.npz")


def test_a_member_that_is_larger_than_it_says_takes_no_more_memory_than_it_says(
    event_run: Any, copied: Copy
) -> None:
    run = copied(event_run)
    path = run.path / "evaluation.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("ids.npy", bytes(1 << 26))
    size, content = struct.pack("<I", 1 << 26), bytearray(path.read_bytes())
    while (at := content.find(size)) >= 0:
        content[at : at + 4] = struct.pack("<I", 100)
    path.write_bytes(content)
    tracemalloc.start()
    try:
        with pytest.raises(RunError, match="record cannot be read"):
            evaluation.read_evaluation(run.path)
        assert tracemalloc.get_traced_memory()[1] < 1 << 22
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("a = " + DEEP, "recipe.toml"),
        ("seed = " + LONG, "recipe.toml"),
        ("a." * 3000 + "b = 1", "recipe.toml"),
        ("[data]\nmade = 1e400", "recipe.toml"),
        ("seed = -1", "recipe.toml"),
        ("seed = 1.5", "recipe.toml"),
        ("data = 7", "recipe.toml"),
        ("[data]\nvalidation = inf", "recipe.toml"),
        ("[data]\nvalidation = [1]", "recipe.toml"),
        ("[data]\ntrain_limit = 'all'", "recipe.toml"),
        ("#" * 2_000_000, "recipe.toml"),
    ],
)
def test_a_recipe_of_a_stranger_is_one_line(
    event_run: Any, copied: Copy, mpsl: Command, text: str, where: str
) -> None:
    run = copied(event_run)
    (run.path / "recipe.toml").write_text(text)
    line = ["export", run.path, "--format", "nir", "--weights", "int8", "--data", run.data]
    _one_line(mpsl(*line), where)


def test_a_file_without_permission_says_so(
    event_run: Any, mpsl: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(self: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "read_bytes", refused)
    _one_line(mpsl("export", event_run.path, "--format", "nir"), "Permission denied")


@pytest.mark.parametrize("name", ["banks_deep", "banks_threshold_overflow"])
def test_shared_banks_of_strangers_are_one_line(
    shared_data: Path, tmp_path: Path, mpsl: Command, name: str
) -> None:
    case = shared_data.parent / "cases" / "hostile" / f"{name}.safetensors"
    if not case.is_file():
        pytest.skip("no shared cases")
    (tmp_path / "banks.safetensors").write_bytes(case.read_bytes())
    _one_line(mpsl("export", tmp_path, "--format", "nir"), "banks.safetensors")


def test_the_shared_encrypted_record_is_one_line(
    shared_data: Path, event_run: Any, copied: Copy, mpsl: Command
) -> None:
    case = shared_data.parent / "cases" / "hostile" / "evaluation_encrypted_flag.npz"
    if not case.is_file():
        pytest.skip("no shared cases")
    run = copied(event_run)
    (run.path / "evaluation.npz").write_bytes(case.read_bytes())
    _one_line(mpsl("verify", run.path, "--data", run.data), "encrypted")
