"""`--state`: what is kept is whole, of this run, and a full disk ends a run but not a service."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mpsl_runtime import load
from mpsl_runtime.errors import DataError, OutputError
from mpsl_runtime.run.model import Model
from mpsl_runtime.run.stream import Stream
from mpsl_runtime.service.service import Service, ServiceSettings

RECORDINGS = Path(__file__).parents[2] / "recordings"
Mpsl = Callable[..., tuple[int, str, str]]


def streamed(model_file: Path, policy: str = "tumbling", **options: Any) -> tuple[Model, Stream]:
    model = load(model_file, step_us=10_000)
    stream = model.stream(RECORDINGS / "gesture.es", policy, fit=True, **options)
    assert isinstance(stream, Stream)
    return model, stream


def run_some(model_file: Path, state: Path, items: int | None = None, **options: Any) -> list[Any]:
    """Items of a service, which ends behind so many."""
    model, stream = streamed(model_file, **options)
    found = []
    with Service(model, stream, ServiceSettings(state=state)) as service:
        for item in stream:
            found.append({**item.to_mapping(), "compute_us": 0})
            if len(found) == items:
                service.stop()
    return found


def test_a_run_goes_on_where_it_was_stopped_and_has_nothing_to_do_in_the_end(
    model_file: Path, tmp_path: Path
) -> None:
    whole = run_some(model_file, tmp_path / "other")
    parts: list[Any] = []
    for _ in range(len(whole)):
        part = run_some(model_file, tmp_path / "state", 4)
        if not part:
            break
        parts += part
    assert parts == whole
    assert len(whole) > 12
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"model.nir", "other", "state"}


def test_the_state_of_another_run_is_refused_with_what_differs(
    model_file: Path, write_model: Callable[..., Path], tmp_path: Path
) -> None:
    run_some(model_file, tmp_path / "state", 3)
    before = (tmp_path / "state").read_bytes()
    for word, file, options in (
        ("model", write_model("b.nir", sensor_width=10), {}),
        ("classes", write_model("c.nir", classes="a,b,c"), {}),
        ("policy", model_file, {"policy": "continuous"}),
        ("view", model_file, {"polarity": "merge"}),
    ):
        with pytest.raises(DataError, match=f"state of another {word}; got .*; expected"):
            run_some(file, tmp_path / "state", **options)  # type: ignore[arg-type]
    assert (tmp_path / "state").read_bytes() == before
    assert len(run_some(model_file, tmp_path / "state")) > 3


def test_a_damaged_file_is_one_line_and_left_as_it_is(
    model_file: Path, tmp_path: Path, mpsl: Mpsl
) -> None:
    state = tmp_path / "state"
    words = ("run", model_file, RECORDINGS / "gesture.es", "--fit", "--state", state)
    assert mpsl(*words)[0] == 0
    whole = state.read_bytes()
    for content in (b"", b"not a state", whole[:-9], whole[:99] + b"x" + whole[100:]):
        state.write_bytes(content)
        code, out, err = mpsl(*words)
        assert (code, out) == (2, "")
        assert err.count("\n") == 1
        assert f"in {state}" in err
        assert state.read_bytes() == content
    code, _, err = mpsl(*words[:-1], tmp_path)
    assert code == 2
    assert "not the state of a run" in err
    code, _, err = mpsl(*words[:-1], tmp_path / "absent" / "state")
    assert (code, err.count("\n")) == (2, 1)
    assert "cannot write output" in err


def full(path: Path, content: bytes) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_ends_a_run_and_is_counted_by_a_service(
    model_file: Path, tmp_path: Path, mpsl: Mpsl, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    model, stream = streamed(model_file)
    settings = ServiceSettings(state=tmp_path / "state", stays=True)
    service = Service(model, stream, settings, say=lambda line, **_: said.append(line))
    with service:
        write = Path.write_bytes
        for number, _ in enumerate(stream):
            monkeypatch.setattr(Path, "write_bytes", full if 4 <= number < 8 else write)
        text = service.metrics.text().decode()
    failed = [line for line in text.splitlines() if line.startswith("mpsl_state_write_errors")]
    assert failed == ["mpsl_state_write_errors_total 3"] or failed[0].split()[1] in "2345"
    assert [line.split(":")[0] for line in said] == [
        "the state is not kept any more", "the state is kept again",
    ]  # fmt: skip
    assert "No space left on device" in said[0]
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OutputError, match="No space left on device"):
        run_some(model_file, tmp_path / "other")
    code, _, err = mpsl(
        "run", model_file, RECORDINGS / "gesture.es", "--fit", "--state", tmp_path / "third"
    )
    assert (code, err.count("\n")) == (2, 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.nir", "state"]


def test_it_is_written_as_often_as_asked(model_file: Path, tmp_path: Path) -> None:
    for every_s, least, most in ((0.0, 15, 100), (1e6, 1, 2)):
        model, stream = streamed(model_file)
        settings = ServiceSettings(state=tmp_path / f"{every_s}", state_every_s=every_s)
        with Service(model, stream, settings) as service:
            stream.run()
        text = service.metrics.text().decode()
        line = next(x for x in text.splitlines() if x.startswith("mpsl_state_writes_total"))
        assert least <= int(line.split()[1]) <= most


def test_images_have_no_state(write_model: Callable[..., Path], tmp_path: Path, mpsl: Mpsl) -> None:
    path = write_model(input_kind="image", origin="zero", sensor_width=28, sensor_height=28)
    code, _, err = mpsl("run", path, tmp_path, "--state", tmp_path / "state")
    assert code == 2
    assert err.count("\n") == 1
