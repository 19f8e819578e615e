"""Damage to bytes: flipped bits, numbers that a format hates, parts cut off, moved or made up."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

Random = np.random.Generator
Damage = Callable[[bytearray, Random], bytes]

NUMBERS = [
    0, 1, 2, 7, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1 << 32,
    1 << 40, (1 << 53) + 1, (1 << 63) - 1, (1 << 64) - 1,
]  # fmt: skip


def flip_bits(content: bytearray, random: Random) -> bytes:
    for at in random.integers(0, len(content), random.integers(1, 9)):
        content[at] ^= 1 << int(random.integers(8))
    return bytes(content)


def replace_bytes(content: bytearray, random: Random) -> bytes:
    at = int(random.integers(len(content)))
    content[at : at + int(random.integers(1, 65))] = random.bytes(int(random.integers(1, 65)))
    return bytes(content)


def write_a_number(content: bytearray, random: Random) -> bytes:
    """Sizes, addresses and counts."""
    size = int(random.choice([1, 2, 4, 8, 8]))
    at = int(random.integers(max(1, len(content) // size))) * size
    content[at : at + size] = _number(content, random, size)
    return bytes(content)


def _number(content: bytearray, random: Random, size: int) -> bytes:
    number = int(random.choice(np.array([*NUMBERS, len(content)], np.uint64)))
    return (number * int(random.choice([1, 1, -1])) % (1 << 8 * size)).to_bytes(size, "little")


def truncate(content: bytearray, random: Random) -> bytes:
    return bytes(content[: int(random.integers(len(content)))])


def splice(content: bytearray, random: Random) -> bytes:
    """A part of it over another, or once more between."""
    size = int(random.integers(1, max(2, min(2048, len(content) // 2))))
    source, target = (int(at) for at in random.integers(0, max(1, len(content) - size), 2))
    end = target + size * int(random.integers(2))
    content[target:end] = content[source : source + size]
    return bytes(content)


def noise(content: bytearray, random: Random) -> bytes:
    kept = int(random.choice([0, 8, int(random.integers(len(content)))]))
    return bytes(content[:kept]) + random.bytes(int(random.integers(4096)))


BYTES: list[Damage] = [
    flip_bits, flip_bits, replace_bytes, write_a_number, write_a_number, splice, truncate, noise,
]  # fmt: skip


def near(marks: Sequence[bytes], reach: int = 64) -> Damage:
    """Numbers and bits close behind one of the signatures that structures begin with."""

    def damage(content: bytearray, random: Random) -> bytes:
        mark = marks[int(random.integers(len(marks)))]
        places = [at for at in range(0, len(content) - 8, 2) if content.startswith(mark, at)]
        if not places:
            return flip_bits(content, random)
        for _ in range(int(random.integers(1, 4))):
            at = places[int(random.integers(len(places)))] + int(random.integers(4, reach))
            if at >= len(content):
                continue
            if random.random() < 0.3:
                content[at] ^= 1 << int(random.integers(8))
            else:
                size = int(random.choice([1, 2, 4, 8]))
                content[at : at + size] = _number(content, random, size)
        return bytes(content)

    damage.__name__ = "near_structures"
    return damage
