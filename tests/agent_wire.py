"""The protocol of agents as far as tests speak it themselves, also where they lie. See docs/dev/0013."""

import os
import struct
from collections.abc import Callable

GREETING = b"\nsypy-agent\x00\xf5\n"
VERSION = 1
NAMES = """Hello Done Failed OpenSource OpenDest Close Walk More Listing List Stat Read MakeDir FinishDir Ops HardLink Remove
TouchDir CleanUp SyncAll Put Data Hole Copy End Fetch Content FetchFile Credit Signature Hashes RemoveSource Forget Ping Zipped
Attributes DirAttributes AllAttributes Accounts PutRange""".split()
KINDS = {name: number for number, name in enumerate(NAMES, 1)}
FILE, DIR, LINK = 0, 1, 2
# Attributes: left as they are; wanted ones: none.
AS_THEY_ARE, NO_WISH = b"\0", b"\0"


def num(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def signed(value: int) -> bytes:
    return num((value << 1) ^ (value >> 63) if value >= 0 else ((-value) << 1) - 1)


def text(value: bytes) -> bytes:
    return num(len(value)) + value


def option(value: bytes | None) -> bytes:
    return b"\0" if value is None else b"\1" + text(value)


def meta(
    kind: int = FILE, size: int = 0, mode: int = 0o644, ino: int = 5, mtime: int = 1_700_000_000, before: int = 0
) -> bytes:
    """`before`: the inode number of the entry before."""
    told = num(size) + signed(mtime) + num(0) + num(mode) + num(os.geteuid()) + num(os.getegid()) + num(7)
    return bytes([0b11000 << 3 | kind]) + told + signed(ino - before) + signed(0)


def frame(kind: str | int, ident: int, body: bytes = b"", *, length: int | None = None) -> bytes:
    number = KINDS[kind] if isinstance(kind, str) else kind
    return struct.pack("<IBI", len(body) if length is None else length, number, ident) + body


def capabilities(precision: int = 1) -> bytes:
    return num(precision) + bytes([0, 0, 1, 1, 1, 1, 1])


def listing(key: bytes, entries: list[tuple[bytes, int, int, bytes | None]], *, last: bool = True) -> bytes:
    """`entries`: name, kind, size, target."""
    body, before = bytes([3 if last else 2]) + text(key), 0
    for number, (name, kind, size, target) in enumerate(entries, 100):
        body += text(name) + meta(kind, size, 0o755 if kind == DIR else 0o644, number, before=before) + option(target)
        before = number
    return body + text(b"") + (num(0) + num(0) if last else b"")


class Reading:
    """Values out of a body."""

    def __init__(self, body: bytes) -> None:
        self.body, self.at = body, 0

    def byte(self) -> int:
        self.at += 1
        return self.body[self.at - 1]

    def num(self) -> int:
        value = shift = 0
        while True:
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    def text(self) -> bytes:
        size = self.num()
        self.at += size
        return self.body[self.at - size : self.at]

    @property
    def left(self) -> int:
        return len(self.body) - self.at


def read_frame(read: Callable[[int], bytes]) -> tuple[str, int, bytes]:
    """`read` gives exactly so many bytes, or raises `EOFError`."""
    length, kind, ident = struct.unpack("<IBI", read(9))
    return NAMES[kind - 1], ident, read(length)
