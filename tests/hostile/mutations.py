"""Damage of the kinds that transfers, disks and attackers do to files; the same for the same seed."""

import random
from collections.abc import Callable

Mutation = Callable[[bytearray, random.Random], bytes]
_LENGTHS = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF)


def mutate(data: bytes, seed: int) -> tuple[str, bytes]:
    """Return a damaged copy of ``data`` and the name of the damage."""
    chance = random.Random(seed)
    name = chance.choice(sorted(MUTATIONS))
    return name, MUTATIONS[name](bytearray(data), chance)


def _truncate(data: bytearray, chance: random.Random) -> bytes:
    return bytes(data[: chance.randrange(len(data))])


def _flip_bits(data: bytearray, chance: random.Random) -> bytes:
    for _ in range(chance.choice((1, 8, 64))):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    return bytes(data)


def _flip_bits_of_the_head(data: bytearray, chance: random.Random) -> bytes:
    for _ in range(chance.choice((1, 4))):
        data[chance.randrange(min(len(data), 256))] ^= 1 << chance.randrange(8)
    return bytes(data)


def _zero_block(data: bytearray, chance: random.Random) -> bytes:
    at, size = chance.randrange(len(data)), chance.choice((16, 512, 4096))
    data[at : at + size] = bytes(min(size, len(data) - at))
    return bytes(data)


def _swap_blocks(data: bytearray, chance: random.Random) -> bytes:
    size = min(chance.choice((64, 512)), len(data) // 3)
    one, other = sorted(chance.sample(range(max(2, len(data) - size)), 2))
    data[one : one + size], data[other : other + size] = data[other : other + size], data[one : one + size]
    return bytes(data)


def _edit_length(data: bytearray, chance: random.Random) -> bytes:
    """Overwrite two, four or eight bytes that may be a length or an offset; most are near the begin or the end."""
    size = chance.choice((2, 4, 8))
    near = min(len(data) - size, 512)
    if near <= 0:
        return bytes(data)
    at = chance.choice((chance.randrange(near), len(data) - size - chance.randrange(near)))
    value = chance.choice(_LENGTHS) & (1 << 8 * size) - 1
    data[at : at + size] = value.to_bytes(size, chance.choice(("big", "little")))
    return bytes(data)


def _turn_line_ends(data: bytearray, chance: random.Random) -> bytes:
    before, after = chance.choice(((b"\n", b"\r\n"), (b"\r\n", b"\n")))
    return bytes(data.replace(before, after))


def _repeat_block(data: bytearray, chance: random.Random) -> bytes:
    at, size = chance.randrange(len(data)), chance.choice((16, 512))
    return bytes(data[:at] + data[at : at + size] * chance.choice((2, 50)) + data[at + size :])


def _append(data: bytearray, chance: random.Random) -> bytes:
    return bytes(data) + chance.randbytes(chance.choice((1, 1000, 100_000)))


MUTATIONS: dict[str, Mutation] = {
    "truncated": _truncate,
    "bits flipped": _flip_bits,
    "bits of the head flipped": _flip_bits_of_the_head,
    "block zeroed": _zero_block,
    "blocks swapped": _swap_blocks,
    "length edited": _edit_length,
    "line ends turned": _turn_line_ends,
    "block repeated": _repeat_block,
    "bytes appended": _append,
}
