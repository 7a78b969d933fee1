"""Damaging bytes as disks, networks and people do, in the same way for the same seed."""

import random
from collections.abc import Iterator

EXTREMES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 2**31 - 1, 2**32 - 1, 2**63 - 1, 2**64 - 1)
WIDTHS = (1, 2, 4, 8)
MOST_BYTES = 64  # of a range that is inserted, deleted, duplicated or swapped


def mutants(content: bytes, count: int, seed: int = 0) -> Iterator[bytes]:
    """Yield `count` damaged copies of `content`, each of which differs from it.

    Args:
        content: at least one byte.
        count: how many copies.
        seed: the same seed damages the same way.
    """
    generator = random.Random(seed)
    for _ in range(count):
        yield mutant(content, generator)


def mutant(content: bytes, generator: random.Random) -> bytes:
    """Return a copy of `content` with one to four injuries, different from it."""
    if not content:
        raise ValueError("there is nothing to damage; give at least one byte")
    while True:
        damaged = bytearray(content)
        for _ in range(generator.choice((1, 1, 1, 2, 4))):
            generator.choice(WAYS)(damaged, generator)
        if damaged != content:
            return bytes(damaged)


def _place(damaged: bytearray, generator: random.Random) -> int:
    """Choose a byte: half of the time near the beginning, where files keep their structure."""
    size = max(1, len(damaged))
    return generator.randrange(min(size, 2048) if generator.random() < 0.5 else size)


def _span(damaged: bytearray, generator: random.Random) -> slice:
    start = _place(damaged, generator)
    return slice(start, start + generator.randint(1, MOST_BYTES))


def _flip_a_bit(damaged: bytearray, generator: random.Random) -> None:
    if damaged:
        damaged[_place(damaged, generator)] ^= 1 << generator.randrange(8)


def _set_a_byte(damaged: bytearray, generator: random.Random) -> None:
    if damaged:
        damaged[_place(damaged, generator)] = generator.choice((0, 1, 0x7F, 0x80, 0xFF, 0x0A, 0x22))


def _insert(damaged: bytearray, generator: random.Random) -> None:
    start = _place(damaged, generator)
    damaged[start:start] = generator.randbytes(generator.randint(1, MOST_BYTES))


def _delete(damaged: bytearray, generator: random.Random) -> None:
    del damaged[_span(damaged, generator)]


def _duplicate(damaged: bytearray, generator: random.Random) -> None:
    span = _span(damaged, generator)
    damaged[span.start : span.start] = damaged[span]


def _zero(damaged: bytearray, generator: random.Random) -> None:
    span = _span(damaged, generator)
    damaged[span] = bytes(len(damaged[span]))


def _truncate(damaged: bytearray, generator: random.Random) -> None:
    del damaged[generator.randrange(len(damaged) + 1) :]


def _swap_blocks(damaged: bytearray, generator: random.Random) -> None:
    size = generator.randint(1, MOST_BYTES)
    first, second = sorted(_place(damaged, generator) for _ in range(2))
    if first + size <= second and second + size <= len(damaged):
        one, other = damaged[first : first + size], damaged[second : second + size]
        damaged[first : first + size], damaged[second : second + size] = other, one


def _set_a_length(damaged: bytearray, generator: random.Random) -> None:
    """Write an extreme number, as a length or an offset may be stored, in either byte order."""
    width = generator.choice(WIDTHS)
    start = _place(damaged, generator)
    number = generator.choice(EXTREMES) % 256**width
    if start + width <= len(damaged):
        damaged[start : start + width] = number.to_bytes(width, generator.choice(("little", "big")))


WAYS = (
    _flip_a_bit,
    _set_a_byte,
    _insert,
    _delete,
    _duplicate,
    _zero,
    _truncate,
    _swap_blocks,
    _set_a_length,
)
