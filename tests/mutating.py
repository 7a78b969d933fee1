"""Damaging bytes as disks, networks and people do, in the same way for the same seed."""

import random
from collections.abc import Callable, Iterator

EXTREMES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 2**31 - 1, 2**32 - 1, 2**63 - 1, 2**64 - 1)
MOST_BYTES = 64  # of a range that is inserted, deleted, duplicated or zeroed


def mutants(content: bytes, count: int, seed: int = 0) -> Iterator[bytes]:
    """Yield `count` damaged copies of `content`, which is not empty; each differs from it."""
    generator = random.Random(seed)
    for _ in range(count):
        damaged = content
        while damaged == content:
            for _ in range(generator.choice((1, 1, 1, 2, 4))):
                damaged = _injured(damaged, generator)
        yield damaged


def _injured(content: bytes, draw: random.Random) -> bytes:
    """Damage one place: half of the time near the beginning, where files keep their structure."""
    size = max(1, len(content))
    start = draw.randrange(min(size, 2048) if draw.random() < 0.5 else size)
    stop = start + draw.randint(1, MOST_BYTES)
    way = draw.choice(WAYS)
    return content[:start] + way(content[start:stop], content[stop:], draw)


def _flip_a_bit(old: bytes, rest: bytes, draw: random.Random) -> bytes:
    return bytes(byte ^ 1 << draw.randrange(8) for byte in old[:1]) + old[1:] + rest


def _set_a_byte(old: bytes, rest: bytes, draw: random.Random) -> bytes:
    return bytes([draw.choice((0, 1, 0x7F, 0x80, 0xFF, 0x0A, 0x22))]) + old[1:] + rest


def _set_a_length(old: bytes, rest: bytes, draw: random.Random) -> bytes:
    """Write an extreme number, as a length or an offset may be stored, in either byte order."""
    width = draw.choice((1, 2, 4, 8))
    number = draw.choice(EXTREMES) % 256**width
    return number.to_bytes(width, draw.choice(("little", "big"))) + (old + rest)[width:]


def _swap_blocks(old: bytes, rest: bytes, draw: random.Random) -> bytes:
    other = draw.randrange(len(rest) + 1)
    return rest[other : other + len(old)] + rest[:other] + old + rest[other + len(old) :]


WAYS: list[Callable[[bytes, bytes, random.Random], bytes]] = [
    _flip_a_bit,
    _set_a_byte,
    _set_a_length,
    _swap_blocks,
    lambda old, rest, draw: draw.randbytes(len(old)) + old + rest,
    lambda old, rest, draw: rest,
    lambda old, rest, draw: old + old + rest,
    lambda old, rest, draw: bytes(len(old)) + rest,
    lambda old, rest, draw: b"",
]
