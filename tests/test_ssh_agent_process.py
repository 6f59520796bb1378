"""`sy agent` spoken to directly, by clients that break the rules: it serves what is below its root, and ends."""

import os
import random
import subprocess
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from agent_wire import (
    AS_THEY_ARE,
    DIR,
    FILE,
    GREETING,
    LINK,
    NAMES,
    NO_WISH,
    VERSION,
    Reading,
    capabilities,
    frame,
    meta,
    num,
    option,
    read_frame,
    text,
)
from trees import File, Link, build, keys, leftovers, snapshot

COPY, METADATA = b"\0", b"\2"
UPS = [b"..", b"../outside", b"d/../../outside", b"/etc", b"d//x", b"./d", b"d/", b"a\0b"]
BAD = [b"..", b".", b"", b"../up", b"a/b", b"/tmp/sypy-escaped", b"a\0b"]


class Client:
    def __init__(self, program, home) -> None:
        env = os.environ | {"HOME": os.fspath(home), "RUST_BACKTRACE": "0"}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        self.process = subprocess.Popen([program, "agent"], env=env, **pipes)
        self.ident = 0
        assert self.read(len(GREETING)) == GREETING
        assert self.next() == ("Hello", 0, num(VERSION))

    def read(self, count: int) -> bytes:
        data = self.process.stdout.read(count)
        if len(data) < count:
            raise EOFError
        return data

    def next(self) -> tuple[str, int, bytes]:
        return read_frame(self.read)

    def send(self, data: bytes) -> None:
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def hello(self) -> "Client":
        self.send(frame("Hello", 0, num(VERSION) + b"\2"))
        return self

    def ask(self, kind: str, body: bytes, *more: tuple[str, bytes]) -> tuple[str, bytes]:
        """The last word about a request."""
        self.ident += 1
        self.send(b"".join(frame(name, self.ident, part) for name, part in [(kind, body), *more]))
        while True:
            name, ident, answer = self.next()
            if ident == self.ident and name in ("Done", "Failed"):
                return name, answer

    def open_dest(self, path) -> None:
        """For writing, with times, permissions, sparse files and resuming."""
        options = {4: 1, 5: 1, 11: 1, 12: 1}
        flags = bytes(options.get(n, 0) for n in range(15))
        body = (
            num(0)
            + num(0)
            + text(os.fsencode(path) + b"/")
            + b"\0\1"
            + option(None)
            + capabilities()
            + flags
            + option(None)
            + b"\0"
        )
        assert (answer := self.ask("OpenDest", body))[0] == "Done", answer

    def open_source(self, path) -> None:
        assert (answer := self.ask("OpenSource", num(0) + num(0) + text(os.fsencode(path) + b"/") + b"\0"))[
            0
        ] == "Done", answer

    def end(self) -> tuple[int, str]:
        """Its exit code and what it complained of."""
        with suppress(BrokenPipeError):
            self.process.stdin.close()
        said: list[bytes] = []
        reader = threading.Thread(target=lambda: said.append(self.process.stderr.read()))
        reader.start()
        self.process.stdout.read()
        code = self.process.wait(timeout=20)
        reader.join()
        return code, said[0].decode(errors="replace")


@pytest.fixture
def client(sy_binary, tmp_path):
    """`client()` is a new agent, greeted."""
    made = []

    def client(*, greet: bool = True) -> Client:
        made.append(Client(sy_binary, tmp_path / "home"))
        return made[-1].hello() if greet else made[-1]

    yield client
    for one in made:
        if one.process.poll() is None:
            one.process.kill()
        one.process.wait()
        for pipe in (one.process.stdin, one.process.stdout, one.process.stderr):
            with suppress(BrokenPipeError):
                pipe.close()


@pytest.fixture
def world(tmp_path):
    """A root with links that lead out of it, beside something that must stay as it is."""
    build(tmp_path / "outside", {"kept": "kept", "d/kept": "kept"})
    build(
        tmp_path / "root",
        {"f": "f", "d/x": "x", "old": File(b"o" * 200_000), "out": Link("../outside"), "etc": Link("/etc")},
    )
    return tmp_path / "root"


@pytest.fixture(autouse=True)
def nothing_outside_changes(tmp_path):
    yield
    if (tmp_path / "outside").exists():
        assert keys(tmp_path / "outside") == {"kept", "d", "d/kept"}
        assert (tmp_path / "outside/kept").read_text() == "kept" and (tmp_path / "outside/d/kept").read_text() == "kept"
    assert not os.path.lexists("/tmp/sypy-escaped") and not os.path.lexists(tmp_path / "up")


def op(
    name: bytes, what: bytes = COPY, source: bytes | None = None, target: bytes | None = None, dest: bytes | None = None
) -> bytes:
    known = b"\0" if dest is None else b"\1" + dest
    return text(name) + what + (meta(FILE, 3) if source is None else source) + option(target) + known


def failed(answer: tuple[str, bytes]) -> str:
    """Why a request was refused: as a whole, or its only operation."""
    kind, body = answer
    get = Reading(body)
    if kind == "Done":
        assert body and get.byte() == 0, answer
    get.byte()
    return get.text().decode()


def test_a_file_goes_in_and_comes_out(client, world):
    it = client()
    it.open_dest(world)
    assert it.ask("Ops", text(b"d") + op(b"new") + option(b"new") + AS_THEY_ARE)[1][:1] == b"\1"
    assert (world / "d/new").read_text() == "new"
    it.open_source(world)
    it.ident += 1
    it.send(frame("Fetch", it.ident, text(b"d") + NO_WISH + text(b"new") + num(3)))
    kind, _, body = it.next()
    assert (kind, body[-6:]) == ("Content", text(b"new") + b"\1" + AS_THEY_ARE)
    assert it.next()[0] == "Done"
    assert it.end() == (0, "")


@pytest.mark.parametrize("key", [*UPS, b"out", b"out/d", b"etc"])
def test_no_directory_outside_is_reached(client, world, key):
    it = client()
    it.open_dest(world)
    requests = {
        "Ops": text(key) + op(b"new") + option(b"new") + AS_THEY_ARE,
        "MakeDir": text(key) + text(b"new") + meta(DIR) + b"\0\0",
        "Stat": text(key) + text(b"kept"),
        "Read": text(key + b"/kept"),
        "Remove": text(key) + text(b"kept") + b"\0" + num(4) + num(0) + num(0) + num(0) + b"\0",
        "HardLink": text(b"d") + text(key + b"/kept") + op(b"linked"),
        "List": text(key),
        "Attributes": text(key) + b"\3" + text(b"kept"),
        "DirAttributes": text(key) + b"\3",
        "AllAttributes": text(key) + b"\3" + text(b""),
        "Hashes": text(key) + text(b"kept"),
        "Fetch": text(key) + NO_WISH + text(b"kept") + num(4),
        "RemoveSource": text(key) + op(b"kept", source=meta(FILE, 4)),
        "TouchDir": text(key) + num(2) + num(0),
        "PutRange": text(key) + text(b"kept") + num(0) + num(4),
        "FetchFile": num(1000) + text(key) + text(b"kept") + NO_WISH + b"\0\0" + num(0) + num(1000) + b"s" * 32,
    }
    before = snapshot(world.parent / "outside", untouched=True)
    for kind, body in requests.items():
        # Some answers are a list of what became of each.
        try:
            name, answer = it.ask(kind, body)
        except EOFError:
            # What can't be read ends the connection.
            it = client()
            it.open_dest(world)
            continue
        assert b"kept" not in answer[-8:] or name == "Failed", (kind, name, answer)
        if kind == "Stat":
            assert name == "Failed" or answer == b"\0", (kind, answer)
        elif kind == "Attributes":
            # First it says whether it runs as root.
            failed((name, answer[1:]))
        elif kind not in ("Fetch", "List"):
            failed((name, answer))
    assert snapshot(world.parent / "outside", untouched=True) == before
    assert not (world / "d/linked").exists()


@pytest.mark.parametrize("name", BAD)
def test_no_name_leads_out(client, world, name):
    bodies = {
        "Ops": text(b"d") + op(name) + option(b"new") + AS_THEY_ARE,
        "MakeDir": text(b"d") + text(name) + meta(DIR) + b"\0\0",
        "Put": text(b"d") + op(name, source=meta(FILE, 10)) + AS_THEY_ARE + b"\0" + b"s" * 32,
        "CleanUp": text(b"") + num(1) + text(name),
        "PutRange": text(b"d") + text(name) + num(0) + num(4),
        "HardLink": text(b"d") + text(b"f") + op(name),
        "Remove": text(b"d") + text(name) + b"\1" + num(0) + num(0) + num(0) + num(0),
    }
    for kind, body in bodies.items():
        it = client()
        it.open_dest(world)
        with suppress(EOFError):
            failed(it.ask(kind, body))
        assert "panicked" not in it.end()[1]


def test_only_what_is_ours_is_cleaned_up(client, world):
    (world / ".sypy-0123456789abcdef").write_text("?")
    it = client()
    it.open_dest(world)
    it.ask("CleanUp", text(b"") + num(2) + text(b"f") + text(b"old"))
    assert (world / "f").exists() and (world / "old").exists()


@pytest.mark.parametrize("name", [b"f", b"old", b"out", b".sypy-tmp-0-1-1-0.0"])
def test_ranges_go_only_into_files_that_are_being_made(client, world, name):
    if name.startswith(b"."):
        os.symlink("f", world / name.decode())
    it = client()
    it.open_dest(world)
    assert failed(it.ask("PutRange", text(b"") + text(name) + num(0) + num(1), ("Data", b"!"), ("End", b"h" * 32)))
    assert (world / "f").read_text() == "f" and (world / "old").read_bytes() == b"o" * 200_000
    assert keys(world.parent / "outside") == {"kept", "d", "d/kept"}


def test_ranges_are_not_longer_than_they_are_said_to_be(client, world):
    it = client()
    it.open_dest(world)
    put = text(b"") + op(b"big", source=meta(FILE, 1000)) + AS_THEY_ARE + b"\3" + b"s" * 32
    it.ident += 1
    empty = bytes.fromhex("af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262")
    it.send(b"".join(frame(kind, it.ident, part) for kind, part in [("Put", put), ("Hole", num(0)), ("End", empty)]))
    assert it.next()[0] == "Credit"
    kind, ident, name = it.next()
    assert (kind, ident) == ("Credit", it.ident)
    for pieces in [
        [("Data", b"x" * 101)],
        [("Data", b"x" * 99), ("End", b"h" * 32)],
        [("Data", b"x" * 100), ("End", b"h" * 32)],
    ]:
        assert failed(it.ask("PutRange", text(b"") + name + num(0) + num(100), *pieces))
    assert not (world / "big").exists()
    it.end()
    assert leftovers(world) == []


def test_links_may_point_anywhere_but_are_not_followed(client, world):
    it = client()
    it.open_dest(world)
    link = meta(LINK, 10)
    assert (
        it.ask("Ops", text(b"") + op(b"l", source=link, target=b"../outside") + option(None) + AS_THEY_ARE)[1][:1]
        == b"\1"
    )
    assert failed(it.ask("Ops", text(b"l") + op(b"new") + option(b"new") + AS_THEY_ARE))
    assert failed(it.ask("MakeDir", text(b"l") + text(b"new") + meta(DIR) + b"\0\0"))
    assert os.readlink(world / "l") == "../outside"


def test_sizes_that_lie_leave_the_old_file(client, world):
    it = client()
    it.open_dest(world)
    whole = text(b"") + op(b"old", source=meta(FILE, 10)) + AS_THEY_ARE + b"\0" + b"s" * 32
    for pieces in [
        [("Data", b"x" * 11)],
        [("Data", b"x" * 9), ("End", b"h" * 32)],
        [("Data", b"x" * 10), ("End", b"h" * 32)],
        [("Hole", num(1 << 60))],
        [("Hole", num((1 << 64) - 1))],
        [("Copy", b"\0\0\1")],
        [("End", b"")],
    ]:
        assert failed(it.ask("Put", whole, *pieces))
    assert failed(it.ask("Ops", text(b"") + op(b"old") + option(b"four") + AS_THEY_ARE))
    assert (world / "old").read_bytes() == b"o" * 200_000
    it.end()
    assert leftovers(world) == []


@pytest.mark.parametrize(
    ("block", "count"), [(1 << 60, 1), (0, 1 << 60), ((1 << 64) - 1, (1 << 64) - 1), (1000, 1), (0, 0)]
)
def test_blocks_that_are_not_there_are_refused(client, world, block, count):
    info = (world / "old").stat()
    told = (
        num(info.st_size)
        + num(info.st_mtime_ns // 10**9 * 2)
        + num(info.st_mtime_ns % 10**9)
        + num(0o644)
        + num(0)
        + num(0)
        + num(7)
    )
    dest = bytes([0b11000 << 3]) + told + num((info.st_ino - 5) * 2) + num(0)
    it = client()
    it.open_dest(world)
    put = text(b"") + op(b"old", source=meta(FILE, 200_000), dest=dest) + AS_THEY_ARE + b"\1" + b"s" * 32
    assert failed(it.ask("Put", put, ("Copy", b"\0" + num(block) + num(count)), ("End", num(200_000) + b"h" * 32)))
    assert (world / "old").read_bytes() == b"o" * 200_000
    it.end()
    assert leftovers(world) == []


def test_a_difference_from_another_file_than_was_listed_is_refused(client, world):
    it = client()
    it.open_dest(world)
    put = text(b"") + op(b"old", source=meta(FILE, 200_000), dest=meta(FILE, 200_000)) + AS_THEY_ARE + b"\1" + b"s" * 32
    assert "changed" in failed(it.ask("Put", put, ("End", num(0) + b"h" * 32)))


GARBAGE = {
    "too large": frame("Ops", 1, length=0x7FFFFFFF),
    "just too large": frame("Ops", 1, length=(1 << 20) + (64 << 10) + 1),
    "unknown kind": frame(77, 1),
    "kind zero": frame(0, 1),
    "cut short": frame("Ops", 1, b"abc", length=100),
    "a bomb": frame("Zipped", 0, bytes.fromhex("28b52ffd0070") + b"\xff" * 1000),
    "nothing but a head": b"\0\0",
}


@pytest.mark.parametrize("what", GARBAGE)
@pytest.mark.parametrize("opened", [True, False])
def test_nonsense_ends_the_connection(client, world, what, opened):
    it = client()
    if opened:
        it.open_dest(world)
    before = snapshot(world, untouched=True)
    it.send(GARBAGE[what])
    code, said = it.end()
    assert code != 0 and "panicked" not in said
    assert snapshot(world, untouched=True) == before


def test_bytes_at_random_do_no_harm(client, world, tmp_path):
    dice = random.Random(7)
    before = snapshot(world, untouched=True)
    for round_ in range(12):
        it = client()
        it.open_source(world)
        try:
            for _ in range(40):
                kind = dice.choice([kind for kind in range(1, len(NAMES) + 1) if kind not in (4, 5)])
                it.send(frame(kind, dice.randrange(5), dice.randbytes(dice.randrange(60))))
        except BrokenPipeError:
            pass
        _, said = it.end()
        assert "panicked" not in said, round_
    assert snapshot(world, untouched=True) == before


def test_another_version_is_answered_with_ours_and_the_end(client):
    it = client(greet=False)
    it.send(frame("Hello", 0, num(99)))
    assert it.end()[0] == 0
    it = client(greet=False)
    it.send(frame("Ops", 0, b""))
    assert it.end()[0] != 0


def test_a_source_is_not_written_to(client, world):
    it = client()
    it.open_source(world)
    assert "writing" in failed(it.ask("Ops", text(b"d") + op(b"new") + option(b"new") + AS_THEY_ARE))
    assert not (world / "d/new").exists()


def test_sources_larger_than_said_are_not_sent(client, world):
    it = client()
    it.open_source(world)
    kind, answer = it.ask("Fetch", text(b"") + NO_WISH + text(b"old") + num(3))
    assert kind == "Done" and answer == b""
    kind, answer = it.ask("Fetch", text(b"") + NO_WISH + text(b"old") + num(1 << 62))
    assert kind == "Done"


def test_listings_come_as_far_as_they_were_let(client, world):
    build(world, {f"e{d:02}/{'n' * 200}{n}": b"" for d in range(30) for n in range(100)})
    it = client()
    it.ident += 1
    it.send(frame("OpenSource", it.ident, num(77) + num(1) + text(os.fsencode(world) + b"/") + b"\0"))
    granted, got = 1, 0
    for _ in range(60):
        granted += 1000
        it.send(frame("More", 0, num(1000)))
        # The answer to a question comes after what may be sent before it, but for what is still being listed.
        time.sleep(0.005)
        it.ident += 1
        it.send(frame("Stat", it.ident, text(b"") + text(b"f")))
        while (answer := it.next())[1] != it.ident:
            got += len(answer[2]) if answer[0] == "Listing" else 0
    assert 30_000 < got < granted + 150_000


def test_an_agent_takes_little_memory_whatever_it_is_told(client, world):
    it = client()
    it.open_dest(world)
    for n in range(200):
        it.send(frame("CleanUp", 1000 + n, text(b"d%d" % n) + num(0)))
    for n in range(64):
        it.send(
            frame(
                "Ops",
                5000 + n,
                text(b"d") + (op(b"big%d" % n, source=meta(FILE, 900_000)) + option(b"x" * 900_000) + AS_THEY_ARE),
            )
        )
    it.ask("Stat", text(b"") + text(b"f"))
    status = Path(f"/proc/{it.process.pid}/status").read_text()
    peak = int(status.split("VmHWM:")[1].split()[0])
    assert peak < 120_000
