"""Text: every dialect of the field is read, and what cannot be told is asked for by name."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpsl_runtime.errors import DataError, UsageError
from mpsl_runtime.events.events import Events
from mpsl_runtime.events.options import ReadOptions
from mpsl_runtime.events.readers import decode_events

ROWS = [(1057, 30, 23, 0), (1066, 24, 30, 1), (250_000, 3, 5, 0)]


def read(text: str, **options: object) -> tuple[list[tuple[int, ...]], Events]:
    events = decode_events(text.encode(), "a.csv", ReadOptions(**options))  # type: ignore[arg-type]
    columns = (events.t.tolist(), events.x.tolist(), events.y.tolist(), events.p.tolist())
    return list(zip(*columns, strict=True)), events


def lines(form: str, head: str = "") -> str:
    return head + "".join(form.format(t=t, s=t / 1e6, x=x, y=y, p=p) for t, x, y, p in ROWS)


@pytest.mark.parametrize(
    "text",
    [
        lines("{t},{x},{y},{p}\n"),
        lines("{t},{x},{y},{p}\r\n", "timestamp,x,y,polarity\r\n"),
        lines("{x},{y},{p},{t}\n", "x,y,p,t\n"),
        lines('"{t}","{x}","{y}","{p}"\n', '"t","x","y","p"\n'),
        lines("{t}, {x}, {y}, {p},\n", "t, x, y, p,\n"),
        lines("{t}\t{x}\t{y}\t{p}\n", "t\tx\ty\tp\n"),
        lines("{t};{x};{y};{p}\n"),
        lines("{t} {x}  {y} {p}\n", "# t x y p\n"),
        lines("  {t} {x} {y} {p}\n", "34 34\n"),
        lines("{s:.9f} {x} {y} {p}\n", "34 34\n"),
        lines("{s:.6f},{x},{y},{p}\n", "time [s],x,y,pol\n"),
        lines("{s!r},{x},{y},{p}\n"),
        lines("{s:e},{x},{y},{p}\n"),
        lines("{t}.0,{x}.0,{y}.0,{p}.0\n"),
        lines("{t}000,{x},{y},{p}\n", "t_ns,x,y,p\n"),
        lines("{x},{y},{p},{t}\n", "%geometry:34,34\n"),
        lines("{t},{x},{y},{p}\n", "t,x@34,y@34,on\n"),
        lines("{t},7,{x},{y},{p},a\n", "ts,id,x,y,p,comment\n"),
        "\ufeff" + lines("{t},{x},{y},{p}\n", "t,x,y,p\n"),
        lines("{t},{x},{y},{p}\n").replace(",0\n", ",False\n").replace(",1\n", ",True\n"),
        lines("{t},{x},{y},{p}\n").replace(",0\n", ",-1\n"),
        lines("{t},{x},{y},{p}\n").rstrip("\n"),
    ],
)
def test_a_dialect_that_can_be_told_is_read(text: str) -> None:
    rows, events = read(text)
    assert rows == ROWS
    is_said = "34" in text.split("1057")[0].split("0.001")[0]
    assert events.sensor_size == ((34, 34) if is_said else None)


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        (lines("{x},{y},{p},{t}\n"), {"columns": "x,y,p,t"}, "or --columns x,y,p,t"),
        (lines("{p} {t} {x} {y}\n"), {"columns": "p,t,x,y"}, "not t,x,y,p"),
        (lines("{t},9,{x},{y},{p}\n"), {"columns": "t,-,x,y,p"}, "5 columns where 4 are to be"),
        (lines("{t}000,{x},{y},{p}\n"), {"time_unit": "ns"}, None),
        (lines("{t}.5,{x},{y},{p}\n").replace(".5", ".0"), {"time_unit": "us"}, None),
        ("1.057,30,23,0\n1.066,24,30,1\n250.0,3,5,0\n", {"time_unit": "ms"}, "unit of time cannot"),
        (lines("1700000000{t:06}000,{x},{y},{p}\n"), {"time_unit": "ns"}, "too large for micro"),
        ("a,b,c,d\n" + lines("{t},{x},{y},{p}\n"), {"columns": "t,x,y,p"}, "header of the text"),
    ],
)
def test_what_cannot_be_told_is_asked_for_and_then_read(
    text: str, options: dict[str, object], message: str | None
) -> None:
    if message is not None:
        with pytest.raises(DataError, match=re.escape(message)):
            read(text)
    rows, _ = read(text, **options)
    assert [row[1:] for row in rows] == [row[1:] for row in ROWS]
    start = rows[0][0] - ROWS[0][0]
    assert start in (0, 1_700_000_000_000_000)
    assert [row[0] - start for row in rows] == [row[0] for row in ROWS]


def test_times_are_exact_where_a_float_is_not() -> None:
    rows, _ = read("9007199254.740993,1,2,1\n9007199254.7409935,1,2,1\n", time_unit="s")
    assert [row[0] for row in rows] == [9007199254740993, 9007199254740994]
    assert read("1.4999999999999999999999e-1,1,2,1\n", time_unit="us")[0][0][0] == 0


@given(st.lists(st.integers(0, 10**15), min_size=1, max_size=20))
def test_seconds_with_any_number_of_digits_come_back(times: list[int]) -> None:
    text = "".join(f"{t // 10**6}.{t % 10**6:06},1,2,1\n" for t in sorted(times))
    assert [row[0] for row in read(text, time_unit="s")[0]] == sorted(times)


def test_lines_that_are_no_events_are_counted_and_comments_are_not() -> None:
    text = (
        lines("{t},{x},{y},{p}\n", "# made by hand\n\n") + "300000,70000,1,1\n,,,\n300001,1,2,0\n"
    )
    with pytest.warns(UserWarning, match=r"a\.csv: 2 lines that are no events"):
        rows, _ = read(text)
    assert len(rows) == 4
    with pytest.raises(DataError, match="not whole; got 2 lines that are no events"):
        read(text, strict=True)


def test_a_line_without_an_end_is_one_short_message() -> None:
    with pytest.raises(DataError, match="text has 1 columns") as caught:
        read("1" * 200_000)
    assert len(str(caught.value)) < 300
    with pytest.warns(UserWarning, match="1 line that is no event"):
        rows, _ = read("1,2,3,1\n" + "1," * 200_000 + "\n5,1,2,0\n")
    assert len(rows) == 2


@pytest.mark.parametrize(
    "wrong",
    [
        {"columns": "t,x,y"},
        {"columns": "t,x,y,p,p"},
        {"columns": ""},
        {"time_unit": "h"},
        {"sort_window_ms": -1},
        {"sort_window_ms": float("nan")},
        {"sort_window_ms": 1e30},
    ],
)
def test_options_that_cannot_be_meant_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        ReadOptions(**wrong)  # type: ignore[arg-type]
