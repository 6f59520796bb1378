"""An agent that lies: `python hostile_agent.py HOW agent` says it has a tree, and breaks the rules in one way."""

import os
import sys
import time

from agent_wire import (
    AS_THEY_ARE,
    DIR,
    FILE,
    GREETING,
    LINK,
    VERSION,
    Reading,
    capabilities,
    frame,
    listing,
    meta,
    num,
    option,
    read_frame,
    text,
)
from lying import read, write

HOW = sys.argv[1]
SIZE = 300_000
BAD_NAMES = {
    "dotdot": b"..", "dot": b".", "up": b"../escaped", "absolute": b"/tmp/sypy-escaped", "slash": b"a/b", "nul": b"a\0b",
    "long": b"n" * 5000,
}  # fmt: skip
ROOT = [(b"big", FILE, SIZE, None), (b"d", DIR, 0, None), (b"small", FILE, 5, None)]
BELOW = [(b"f", FILE, 5, None)]


def forever(data: bytes) -> None:
    while True:
        write(data)


def trees() -> tuple[list, list]:
    root, below = list(ROOT), list(BELOW)
    if HOW in BAD_NAMES:
        below.append((BAD_NAMES[HOW], FILE, 5, None))
    if HOW == "order":
        root.reverse()
    if HOW == "twice":
        root.insert(1, root[0])
    if HOW == "link-and-directory":
        # They sort apart, as `d` and `d/`.
        root.insert(1, (b"d", LINK, 0, b"../outside"))
    if HOW == "link-then-below":
        root[1] = (b"d", LINK, 0, b"../outside")
    if HOW == "huge":
        root[0] = (b"big", FILE, 1 << 62, None)
    return root, below


def open_source(ident: int, body: bytes) -> None:
    get = Reading(body)
    walk = get.num()
    one = {"one-up": b"../escaped", "one-absolute": b"/tmp/sypy-escaped", "one-nul": b"a\0", "one-other": b"other"}.get(
        HOW
    )
    kind = DIR if one is None else FILE
    write(
        frame(
            "Done",
            ident,
            capabilities() + text(b"/srv") + text(b"boot") + b"\1" + meta(DIR, ino=3) + option(one) + bytes([kind]),
        )
    )
    if HOW == "endless-listing":
        while True:
            write(
                frame("Listing", walk, listing(b"", [(b"%020d" % n, FILE, 1, None) for n in range(1000)], last=False))
            )
    if HOW == "endless-directories":
        for n in range(1 << 40):
            write(frame("Listing", walk, listing(b"%020d" % n, [(b"%04d" % n, FILE, 1, None) for n in range(1000)])))
    if HOW == "walk-out":
        write(frame("Listing", walk, listing(b"../..", BELOW)))
    root, below = trees()
    write(frame("Listing", walk, listing(b"", root)))
    write(frame("Listing", walk, listing(b"d", below)))
    write(frame("Listing", walk, b"\0"))


def fetch(ident: int, body: bytes) -> None:
    get = Reading(body)
    get.text()
    get.byte()
    while get.left:
        name, size = get.text(), get.num()
        content = {"small-longer": b"12345678", "small-shorter": b"1"}.get(HOW, b"x" * size)
        ino = {b"f": 100, b"small": 102 + (HOW in ("link-and-directory", "twice"))}.get(name, 5)
        write(frame("Content", ident, b"\1" + meta(FILE, size, ino=ino) + text(content) + b"\1" + AS_THEY_ARE))
        if HOW == "content-flood":
            forever(
                frame("Content", ident, b"\1" + meta(FILE, size, ino=ino) + text(b"x" * 200_000) + b"\1" + AS_THEY_ARE)
            )
    write(frame("Done", ident))


def fetch_file(ident: int) -> None:
    if HOW == "big-longer":
        forever(frame("Data", ident, b"x" * 100_000))
    if HOW == "hole-longer":
        write(frame("Hole", ident, num(1 << 60)))
    if HOW == "data-flood":
        forever(frame("Data", ident, b""))
    if HOW == "signature-flood":
        forever(frame("Signature", ident, b"x" * 100_000))
    if HOW == "far-start":
        write(frame("Credit", ident, num(1 << 60)))
    if HOW == "wild-copy":
        write(frame("Copy", ident, b"\0" + num(1 << 60) + num(1 << 60)))
    size = {"big-shorter": 1000, "huge": 1000}.get(HOW, SIZE)
    for at in range(0, size, 100_000):
        write(frame("Data", ident, b"x" * min(100_000, size - at)))
    write(frame("Done", ident, meta(FILE, 1 << 62 if HOW == "huge" else SIZE, ino=100) + AS_THEY_ARE + b"h" * 32))


def main() -> None:
    write(GREETING + frame("Hello", 0, num(99 if HOW == "version" else VERSION)))
    if HOW == "garbage":
        write(os.urandom(4000))
    if HOW == "too-large":
        write(frame("Done", 1, length=0x7FFFFFFF))
    if HOW == "unknown-kind":
        write(frame(200, 1))
    if HOW == "pings":
        forever(frame("Ping", 0))
    if HOW == "bomb":
        write(frame("Zipped", 0, bytes.fromhex("28b52ffd0070") + b"\xff" * 1000))
    while True:
        kind, ident, body = read_frame(read)
        if HOW == "wrong-id" and kind != "Hello":
            write(frame("Done", ident + 1000, b""))
            time.sleep(0.5)
            return
        if HOW == "silent-end" and kind != "Hello":
            return
        if kind == "OpenSource":
            open_source(ident, body)
        elif kind == "List":
            write(frame("Listing", ident, listing(b"d", BELOW)) + frame("Done", ident))
        elif kind == "Stat":
            write(frame("Done", ident, b"\1" + meta(FILE, 5) + option(None)))
        elif kind == "Fetch":
            fetch(ident, body)
        elif kind == "FetchFile":
            fetch_file(ident)
        elif kind == "OpenDest":
            write(
                frame(
                    "Failed",
                    ident,
                    b"\7" + text(b"\x1b[31mno") + b"\1" + text(b"\n/x") + text(b"rm -rf") + num(0) + b"\0\0",
                )
            )
        elif kind in ("Close", "Ping") and not body:
            write(frame("Done", ident))


main()
