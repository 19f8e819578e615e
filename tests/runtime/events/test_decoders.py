"""Decoders with state: any way to cut the bytes gives the same events, in every format."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest

from mpsl_runtime.errors import DataError
from mpsl_runtime.events.decoder import Decoder, open_decoder
from mpsl_runtime.events.events import Events
from mpsl_runtime.events.options import ReadOptions
from mpsl_runtime.events.readers import decode_events


def same(one: Events, other: Events) -> bool:
    return all(np.array_equal(getattr(one, c), getattr(other, c)) for c in "txyp")


def joined(pieces: list[Events]) -> Events:
    return Events(*(np.concatenate([getattr(piece, c) for piece in pieces]) for c in "txyp"))


def fed(data: bytes, cuts: list[int], name: str, options: ReadOptions | None = None) -> Events:
    decoder = Decoder(name, options)
    edges = [0, *sorted(cuts), len(data)]
    pieces = [decoder.feed(data[a:b]) for a, b in pairwise(edges)]
    pieces.append(decoder.finish())
    assert not decoder.trouble, str(decoder.trouble)
    return joined(pieces)


def test_every_format_gives_its_events_back_whole(
    format_name: str, encode: Callable[..., bytes], some_events: Callable[..., Events]
) -> None:
    events = some_events(1)
    decoder = Decoder(format_name)
    read = joined([decoder.feed(encode(format_name, events)), decoder.finish()])
    assert same(read, events)
    assert not decoder.trouble, str(decoder.trouble)
    assert decoder.format


def test_every_split_into_two_gives_the_same_events(
    format_name: str, encode: Callable[..., bytes], some_events: Callable[..., Events]
) -> None:
    events = some_events(2, 12, 400)
    data = encode(format_name, events)
    for cut in range(len(data) + 1):
        assert same(fed(data, [cut], format_name), events), cut


def test_byte_by_byte_and_random_splits_give_the_same_events(
    format_name: str, encode: Callable[..., bytes], some_events: Callable[..., Events]
) -> None:
    events = some_events(3, 300, 400_000)
    data = encode(format_name, events)
    assert same(fed(data, list(range(1, len(data))), format_name), events)
    random = np.random.default_rng(4)
    for _ in range(20):
        cuts = random.integers(0, len(data) + 1, int(random.integers(1, 12))).tolist()
        assert same(fed(data, cuts, format_name), events), cuts


def test_events_come_as_soon_as_their_bytes_are_there(
    format_name: str, encode: Callable[..., bytes], some_events: Callable[..., Events]
) -> None:
    if format_name in ("es.zst", "dat.lz4", "evt3.gz", "nmnist.bin.gz"):
        return  # so few events are one block, which comes when its end is there
    data = encode(format_name, some_events(5, 500))
    decoder = Decoder(format_name)
    first = decoder.feed(data[: len(data) * 3 // 4])
    assert len(first) > 150


def test_a_sort_window_changes_nothing_of_what_is_in_order(
    format_name: str, encode: Callable[..., bytes], some_events: Callable[..., Events]
) -> None:
    events = some_events(6)
    read = fed(encode(format_name, events), [1000], format_name, ReadOptions(sort_window_ms=20))
    assert same(read, events)


def test_late_events_within_the_window_are_put_in_their_place_wherever_the_bytes_are_cut() -> None:
    t = [0, 100, 90, 250, 240, 230, 400, 1000]
    data = "".join(f"{time},1,2,{i % 2}\n" for i, time in enumerate(t)).encode()
    order = np.argsort(t, kind="stable")
    for cut in range(len(data)):
        decoder = Decoder("a.csv", ReadOptions(sort_window_ms=0.02, strict=True))
        read = joined([decoder.feed(data[:cut]), decoder.feed(data[cut:]), decoder.finish()])
        assert read.t.tolist() == sorted(t)
        assert read.p.tolist() == [int(i) % 2 for i in order]
        assert str(decoder.trouble) == "3 late events put in their place"


def test_an_event_that_comes_later_than_the_window_is_an_error_with_its_number_and_delay() -> None:
    rows = b"".join(b"%d,1,2,1\n" % t for t in (0, 5000, 9000, 4000, 10000, 3000))
    with pytest.raises(DataError) as caught:
        decode_events(rows, "a.csv")
    assert str(caught.value) == (
        "time falls; got 2 of 6 events late by up to 7 ms, the first is event 3: 4000 µs after "
        "9000 µs; expected times that never decrease (--sort-window 7 sorts them); in a.csv"
    )
    assert len(decode_events(rows, "a.csv", ReadOptions(sort_window_ms=7), on_trouble=print)) == 6


def test_a_clock_that_was_set_back_is_not_offered_to_be_sorted() -> None:
    with pytest.raises(DataError, match=r"late by up to 100,000 ms.*times that never decrease; in"):
        decode_events(b"100000000,1,2,1\n0,1,2,1\n1,1,2,1\n", "a.csv")


def test_the_content_decides_not_the_suffix(
    format_name: str, encode: Callable[..., bytes], some_events: Callable[..., Events]
) -> None:
    if format_name.startswith("nmnist.bin"):
        return  # the one format without a mark
    events = some_events(7)
    for name in ("a.RAW", "a", "a.csv", "a.aedat"):
        assert same(decode_events(encode(format_name, events), name), events)


def test_a_decoder_is_opened_by_the_first_bytes_or_by_none() -> None:
    assert open_decoder(b"", "tcp://somewhere").format is None
    assert open_decoder(b"% evt 3.0\n% e", "-").format is None
    with pytest.raises(DataError, match="unknown format of recording; got bytes 00 01 02 ff"):
        open_decoder(b"\0\1\2\xff", "a.raw")


@pytest.mark.parametrize("count", [0, 1])
def test_nothing_at_all_is_an_error_and_no_events_are_said(count: int) -> None:
    if not count:
        with pytest.raises(DataError, match="empty recording; got 0 bytes"):
            decode_events(b"", "a.bin")
        return
    said: list[str] = []
    assert (
        len(decode_events(b"% evt 3.0\n% geometry 4x3\n% end\n", "a.raw", on_trouble=said.append))
        == 0
    )
    assert said == ["a.raw: no events"]
    with pytest.raises(DataError, match="recording is not whole; got no events"):
        decode_events(b"% evt 3.0\n% end\n", "a.raw", ReadOptions(strict=True))


@pytest.mark.parametrize("name", ["aedat4", "bag"])
def test_several_streams_are_named_and_one_is_chosen(
    encode: Callable[..., bytes], some_events: Callable[..., Events], name: str
) -> None:
    events = some_events(8)
    wanted = {"aedat4": "2", "bag": "/right"}[name]
    names = (
        {"streams": ("EVTS", "FRME", "EVTS")} if name == "aedat4" else {"topics": ("/l", "/right")}
    )
    data = encode(name, events, **names)
    with pytest.raises(DataError, match=f"several streams of events; got .*{wanted}.*--stream"):
        decode_events(data, "a")
    assert same(decode_events(data, "a", ReadOptions(stream=wanted)), events)
    if name == "aedat4":
        assert same(decode_events(data, "a", ReadOptions(stream="events")), events)
    with pytest.raises(DataError, match=r"has no such .* got .*expected"):
        decode_events(data, "a", ReadOptions(stream="nowhere"))


def test_what_unpacks_to_far_more_than_recordings_do_is_refused() -> None:
    from mpsl_runtime.events import packed

    zeros = bytes(1 << 25)
    for pack in (packed_by_gzip, packed_by_zstd):
        with pytest.raises(DataError, match="recording unpacks to more than recordings do"):
            decode_events(pack(b"% a\n\x0c\x08" + zeros), "a.dat.x")
    assert set(packed.PACKINGS.values()) == {"gzip", "zstd", "lz4"}


def packed_by_gzip(data: bytes) -> bytes:
    return gzip.compress(data)


def packed_by_zstd(data: bytes) -> bytes:
    from mpsl_runtime.events.compression import zstandard

    return bytes(zstandard().compress(data))


@pytest.mark.parametrize("name", ["evt3.gz", "es.zst", "dat.lz4", "bag-lz4", "aedat4-zstd"])
def test_packed_recordings_that_are_cut_give_what_is_whole(
    encode: Callable[..., bytes], some_events: Callable[..., Events], name: str
) -> None:
    data = encode(name, some_events(9, 40_000, 2_000_000))
    said: list[str] = []
    cut = decode_events(data[: len(data) - 60], "a", on_trouble=said.append)
    assert 10_000 < len(cut) <= 40_000
    assert said[0].startswith("a: ends inside")
    if name in ("es.zst", "dat.lz4"):  # whose blocks are large
        with pytest.raises(DataError, match="nothing of the packed recording is whole"):
            decode_events(data[:100], "a")
