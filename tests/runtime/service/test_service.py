"""The service beside a stream: health, losses that are told, and its options on a command line."""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mpsl_runtime import Events, load
from mpsl_runtime.live.source import open_source
from mpsl_runtime.service import service as services
from mpsl_runtime.service.service import Service, ServiceSettings
from mpsl_runtime.verbs import service as options

RECORDINGS = Path(__file__).parents[2] / "recordings"
Mpsl = Callable[..., tuple[int, str, str]]
HERE = ("127.0.0.1", 0)


def health(said: list[dict[str, Any]]) -> tuple[int, bytes]:
    address = next(record["address"] for record in said if "address" in record)
    try:
        with urllib.request.urlopen(address.replace("/metrics", "/healthz")) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def test_a_stream_that_gives_no_sign_of_life_is_not_healthy(
    model_file: Path, make_events: Callable[..., Events], monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[dict[str, Any]] = []
    model = load(model_file)
    stream = model.stream([make_events(1)])
    settings = ServiceSettings(place=HERE)
    with Service(model, stream, settings, say=lambda _, **v: said.append(v)) as service:
        service.ready()
        next(iter(stream))
        assert health(said) == (200, b"ok\n")
        monkeypatch.setattr(services, "_SILENT_S", 0.0)
        status, body = health(said)
        assert status == 503
        assert body.startswith(b"no sign of life for ")


def test_a_source_without_events_is_healthy(model_file: Path) -> None:
    model = load(model_file)
    with open_source("udp://127.0.0.1:0") as source:
        stream = model.stream(source, fit=True)
        with Service(model, stream, ServiceSettings()) as service:
            service._began_s = -1000.0
            assert service.silent_s > 900
            source.stop()
            assert [*stream] == []
            assert service.silent_s < 900


def test_losses_are_told_with_their_causes(
    model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(services, "_LOSSES_S", 0.01)
    said: list[tuple[str, dict[str, Any]]] = []
    model = load(model_file)
    with open_source("udp://127.0.0.1:0") as source:
        stream = model.stream(source, fit=True)
        with Service(
            model, stream, ServiceSettings(), say=lambda line, **v: said.append((line, v))
        ) as service:
            service.ready()
            source.lose("lost on the way", 1234)
            while not said:
                pass
    told = {"level": "warning", "events_lost": {"lost on the way": 1234}}
    assert said == [("lost in a minute: 1,234 lost on the way", told)]


@pytest.mark.parametrize("serve", [["--serve"], ["--serve", ":0"], ["--serve=127.0.0.1:0"]])
@pytest.mark.parametrize("is_first", [True, False])
def test_a_place_may_follow_serve_or_not(
    serve: list[str], is_first: bool, model_file: Path, mpsl: Mpsl, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(options, "DEFAULT_PLACE", "127.0.0.1:0")
    source = [RECORDINGS / "gesture.es", "--fit"]
    words = [*serve, *source] if is_first else [*source, *serve]
    code, out, err = mpsl("run", model_file, *words)
    assert code == 0
    assert "predictions" in out
    assert re.search(r"^mpsl: figures at http://127\.0\.0\.1:\d+/metrics$", err, re.MULTILINE)


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["--serve=nowhere"], "not a place to listen; got 'nowhere'"),
        (["--serve", "0.0.0.0:0"], "whoever can reach this place may read it"),
        (["--token-file", "/dev/null"], "nothing asks for a token"),
        (["--serve", "--token-file", "/dev/null"], "not a token; got 0 characters"),
        (["--log", "yaml"], "'yaml' is not one of text, json"),
        (["--state-every", "-1"], "state-every"),
    ],
)
def test_what_cannot_be_meant_is_one_line(
    words: list[str], what: str, model_file: Path, mpsl: Mpsl
) -> None:
    code, out, err = mpsl("run", model_file, RECORDINGS / "gesture.es", "--fit", *words)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert what in err


def test_the_log_is_json_line_by_line_whatever_goes_wrong(model_file: Path, mpsl: Mpsl) -> None:
    for words, code, level in (
        ((RECORDINGS / "gesture.es", "--fit"), 0, "warning"),
        ((RECORDINGS / "absent\n.es",), 2, "error"),
        ((RECORDINGS / "gesture.es", "--no-such"), 2, "error"),
    ):
        found, _, err = mpsl("run", model_file, *words, "--log", "json")
        assert found == code
        records = [json.loads(line) for line in err.splitlines()]
        assert [record["level"] for record in records] == [level]
        for record in records:
            assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", record["time"])
            assert record["message"]
    code, _, err = mpsl("run", model_file, RECORDINGS / "absent.es")
    assert err.startswith("mpsl: ")
