"""HighwayHash-64 (Alakuijala, Cox, Wassenberg 2016, arXiv:1612.06257): with it nats-server checks its files. Pure."""

from __future__ import annotations

from typing import Final

PACKET_BYTES: Final = 32
_MASK: Final = (1 << 64) - 1
_LOW: Final = (1 << 32) - 1
_FIRST: Final = (0xDBE6D5D5FE4CCE2F, 0xA4093822299F31D0, 0x13198A2E03707344, 0x243F6A8885A308D3)
_SECOND: Final = (0x3BD39E10CB0EF593, 0xC0ACF169B5F18A8C, 0xBE5466CF34E90C6C, 0x452821E638D01377)
_ZIPPED: Final = (3, 12, 2, 5, 14, 1, 15, 0, 11, 4, 10, 13, 9, 6, 8, 7)
"""Which byte of two lanes comes where when they are zipped together."""
_LAST_ROUNDS: Final = 4


def highway_hash_64(data: bytes, key: bytes) -> bytes:
    """The hash of `data` under a key of 32 bytes: 8 bytes."""
    state = _State(_lanes(key))
    whole = len(data) - len(data) % PACKET_BYTES
    for at in range(0, whole, PACKET_BYTES):
        state.update(_lanes(data[at : at + PACKET_BYTES]))
    if whole < len(data):
        state.update_remainder(data[whole:])
    return state.finalized()


def _lanes(packet: bytes) -> list[int]:
    return [int.from_bytes(packet[at : at + 8], "little") for at in range(0, PACKET_BYTES, 8)]


class _State:
    """Four lanes of 64 bits, four times."""

    def __init__(self, key: list[int]) -> None:
        self._mul0, self._mul1 = list(_FIRST), list(_SECOND)
        self._v0 = [first ^ lane for first, lane in zip(_FIRST, key, strict=True)]
        self._v1 = [second ^ _swapped(lane) for second, lane in zip(_SECOND, key, strict=True)]

    def update(self, packet: list[int]) -> None:
        """Takes 32 bytes in."""
        v0, v1, mul0, mul1 = self._v0, self._v1, self._mul0, self._mul1
        for lane in range(4):
            v1[lane] = (v1[lane] + mul0[lane] + packet[lane]) & _MASK
            mul0[lane] ^= (v1[lane] & _LOW) * (v0[lane] >> 32)
            v0[lane] = (v0[lane] + mul1[lane]) & _MASK
            mul1[lane] ^= (v0[lane] & _LOW) * (v1[lane] >> 32)
        _add_zipped(v0, v1)
        _add_zipped(v1, v0)

    def update_remainder(self, rest: bytes) -> None:
        """Takes the last 1 to 31 bytes in."""
        size = len(rest)
        self._v0 = [(lane + (size << 32) + size) & _MASK for lane in self._v0]
        self._v1 = [_rotated(lane >> 32, size) << 32 | _rotated(lane & _LOW, size) for lane in self._v1]
        packet, aligned = bytearray(PACKET_BYTES), size & ~3
        packet[:aligned] = rest[:aligned]
        if size & 16:
            packet[28:] = rest[-4:]
        elif size & 3:
            tail = rest[aligned:]
            packet[16], packet[17], packet[18] = tail[0], tail[len(tail) >> 1], tail[-1]
        self.update(_lanes(bytes(packet)))

    def finalized(self) -> bytes:
        """The hash."""
        for _ in range(_LAST_ROUNDS):
            self.update([_swapped(self._v0[lane ^ 2]) for lane in range(4)])
        return ((self._v0[0] + self._v1[0] + self._mul0[0] + self._mul1[0]) & _MASK).to_bytes(8, "little")


def _swapped(lane: int) -> int:
    """The halves of a lane change places."""
    return (lane >> 32 | lane << 32) & _MASK


def _rotated(half: int, bits: int) -> int:
    return (half << bits | half >> (32 - bits)) & _LOW


def _add_zipped(to: list[int], lanes: list[int]) -> None:
    for at in (0, 2):
        pair = (lanes[at] | lanes[at + 1] << 64).to_bytes(16, "little")
        zipped = bytes(pair[index] for index in _ZIPPED)
        to[at] = (to[at] + int.from_bytes(zipped[:8], "little")) & _MASK
        to[at + 1] = (to[at + 1] + int.from_bytes(zipped[8:], "little")) & _MASK
