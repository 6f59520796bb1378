"""CRC32C with nothing but the standard library, quick enough for the parts of an upload.

Python has no loop that would be: so the arithmetic of polynomials is done on whole numbers of millions of bits. The first bit of
the data is the highest power, and stands lowest in the number. `x^n` times something, modulo the polynomial, is a few shifts.
"""

import functools

POLYNOMIAL = 0x82F63B78
ONE = 1 << 31
# Below that a table is quicker.
FEW = 8192


def _step(value: int) -> int:
    return (value >> 1) ^ POLYNOMIAL if value & 1 else value >> 1


def _times(a: int, b: int) -> int:
    product, bit = 0, ONE
    while bit:
        if a & bit:
            product ^= b
        bit >>= 1
        b = _step(b)
    return product


@functools.cache
def _power(n: int) -> int:
    """x to the nth, modulo the polynomial."""
    if n == 0:
        return ONE
    half = _power(n // 2)
    square = _times(half, half)
    return _step(square) if n % 2 else square


def _row(byte: int) -> int:
    for _ in range(8):
        byte = _step(byte)
    return byte


TABLE = [_row(byte) for byte in range(256)]


def crc32c(data: bytes) -> int:
    if len(data) < 4:
        # Too short to turn the first 32 bits around.
        return _rest(data, 0xFFFFFFFF) ^ 0xFFFFFFFF
    bits, number = len(data) * 8, int.from_bytes(data, "little") ^ 0xFFFFFFFF
    while bits > FEW:
        # The first half comes down on the second.
        low = (bits + 64) // 16 * 8 + 8
        high = bits - low
        first, number, factor = number & ((1 << high) - 1), number >> high, _power(low)
        for exponent in range(32):
            if factor & (ONE >> exponent):
                number ^= first << (low - high - exponent)
        bits = low
    return _rest(number.to_bytes(bits // 8, "little"), 0) ^ 0xFFFFFFFF


def _rest(data: bytes, crc: int) -> int:
    for byte in data:
        crc = TABLE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc


def joined(first: int, second: int, length: int) -> int:
    """The sum of two pieces one after the other; `length` is that of the second in bytes."""
    return _times(first, _power(length * 8)) ^ second
