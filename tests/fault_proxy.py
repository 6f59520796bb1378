"""Stands between sypy and an object store: counts requests by what they are, and spoils some of them.

    server, proxy = proxied(versitygw)
    proxy.fault(Answer(503, "SlowDown", {"Retry-After": "1"}), kind="PUT", times=2)
    …
    assert proxy.count("LIST") == 1

It speaks HTTP/1.1, keeps connections, and leaves every byte alone that no fault is for. One thread, one event loop.
"""

import asyncio
import dataclasses
import random
import re
import socket
import ssl
import struct
import threading
import time
import urllib.parse
from collections import Counter
from collections.abc import Callable, Mapping

PIECE = 256 << 10
# A new object's name is in the body.
GCS_OBJECT = re.compile(r"(?:/upload)?/storage/v1/b/[^/]+/o(?:/[^/]+/rewriteTo/b/[^/]+/o)?(?:/([^/]+))?")


@dataclasses.dataclass
class Request:
    """What a client asked, and what became of it."""

    method: str
    target: str
    headers: Mapping[str, str]
    at: float
    # What stands before the bucket in every path.
    root: str = ""
    kind: str = ""
    status: int | None = None
    # Bytes of its body that went on to the server, and of the answer's that came back.
    sent: int = 0
    received: int = 0
    fault: "Fault | None" = None
    # How many were under way when it came, itself among them.
    at_once: int = 0

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    @property
    def query(self) -> dict[str, str]:
        return dict(urllib.parse.parse_qsl(self.target.partition("?")[2], keep_blank_values=True))

    @property
    def key(self) -> str:
        """The object's, where the bucket is the first part of the path; in the JSON API of GCS, what is written to."""
        path = self.path.removeprefix(self.root)
        if told := GCS_OBJECT.fullmatch(path):
            return urllib.parse.unquote(told[1] or "")
        return urllib.parse.unquote(path).lstrip("/").partition("/")[2]

    @property
    def length(self) -> int:
        return int(self.headers.get("content-length", 0))


def s3_kind(request: Request) -> str:
    """What a request to S3 is about; several kinds share a method."""
    query, method = request.query, request.method
    if method == "GET":
        if "list-type" in query:
            return "LIST"
        return "PARTS" if "uploadId" in query else "UPLOADS" if "uploads" in query else "GET"
    if method == "POST":
        if "delete" in query:
            return "DELETES"
        return "BEGIN" if "uploads" in query else "COMPLETE"
    if method == "DELETE":
        return "ABORT" if "uploadId" in query else "DELETE"
    if method == "PUT":
        if "x-amz-copy-source" in request.headers:
            return "COPY"
        return "PART" if "uploadId" in query else "PUT"
    return method


def azure_kind(request: Request) -> str:
    """The same for Azure's blobs."""
    comp, method = request.query.get("comp"), request.method
    if method == "GET":
        return {"list": "LIST", "blocklist": "PARTS"}.get(comp or "", "GET")
    if method == "PUT":
        if {"x-ms-copy-source"} & request.headers.keys():
            return "COPY"
        return {"block": "PART", "blocklist": "COMPLETE", "metadata": "METADATA"}.get(comp or "", "PUT")
    return method


def gcs_kind(request: Request) -> str:
    """The same for Google's objects: its JSON API, and its XML API, which is much like S3."""
    if GCS_OBJECT.fullmatch(request.path) is None:
        return s3_kind(request)
    method = request.method
    if method == "GET":
        return "LIST" if not request.key else "GET" if request.query.get("alt") == "media" else "HEAD"
    if method == "POST":
        return "COPY" if "/rewriteTo/" in request.path else "PUT"
    return "METADATA" if method == "PATCH" else method


WRITES = {"METADATA", "PUT", "PART", "COPY", "BEGIN", "COMPLETE", "DELETE", "DELETES", "ABORT"}


@dataclasses.dataclass
class Fault:
    """Something that goes wrong with a request. The fields of a subclass say what exactly."""


@dataclasses.dataclass
class Answer(Fault):
    """The server is not asked: this comes back."""

    status: int
    code: str = "Injected"
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict)
    message: str = "injected"
    body: bytes | None = None


@dataclasses.dataclass
class Reset(Fault):
    """The connection breaks: when so many bytes of the answer's body came back, or of the request's went up."""

    after: int | None = None
    after_sent: int | None = None


@dataclasses.dataclass
class Cut(Fault):
    """The connection ends in order, but too early: after so many bytes of the answer's body."""

    after: int


@dataclasses.dataclass
class Stall(Fault):
    """No byte comes any more, after so many of the answer's body; `None`: not even the head."""

    after: int | None = None
    seconds: float = 3600


@dataclasses.dataclass
class Lost(Fault):
    """The server does what it was asked for, but its answer never arrives."""


@dataclasses.dataclass
class Corrupt(Fault):
    """One byte of the answer's body is another, or of the request's; `at` may count from the request's end."""

    at: int = 0
    request: bool = False


@dataclasses.dataclass
class Delay(Fault):
    """The request waits before it goes on."""

    seconds: float


@dataclasses.dataclass
class Slow(Fault):
    """The bodies of the request and of the answer come with so many bytes a second."""

    rate: float


@dataclasses.dataclass
class Do(Fault):
    """Something happens elsewhere before the request goes on."""

    what: Callable[[Request], object]


@dataclasses.dataclass
class Rule:
    fault: Fault
    kinds: frozenset[str] | None
    key: str | None
    nth: int | None
    every: int | None
    times: int | None
    share: float | None
    where: Callable[[Request], bool] | None
    met: int = 0
    done: int = 0

    def applies(self, request: Request, dice: random.Random) -> bool:
        if self.kinds is not None and request.kind not in self.kinds:
            return False
        if self.key is not None and re.fullmatch(self.key, request.key) is None:
            return False
        if self.where is not None and not self.where(request):
            return False
        self.met += 1
        if self.times is not None and self.done >= self.times:
            return False
        if (self.nth is not None and self.met != self.nth) or (self.every is not None and self.met % self.every):
            return False
        if self.share is not None and dice.random() >= self.share:
            return False
        self.done += 1
        return True


class Closed(Exception):
    """A connection is of no use any more; `abruptly` leaves the other side without a goodbye."""

    def __init__(self, abruptly: bool = False) -> None:
        self.abruptly = abruptly


class Proxy:
    def __init__(
        self,
        upstream: str,
        kind_of: Callable[[Request], str] = s3_kind,
        seed: int = 0,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.tls = tls
        # Those that were begun, whether or not they came to anything.
        self.connections = 0
        if tls:
            tls.sni_callback = self._met
        parts = urllib.parse.urlsplit(upstream)
        self.upstream = (parts.hostname or "127.0.0.1", parts.port or 80)
        self.kind_of = kind_of
        self.requests: list[Request] = []
        self.rules: list[Rule] = []
        self.most_at_once = 0
        self._open = 0
        self._dice = random.Random(seed)
        self._lock = threading.Lock()
        self._loop = asyncio.new_event_loop()
        self._tasks: set[asyncio.Task] = set()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault proxy", daemon=True)
        self._path = parts.path.rstrip("/")
        self.url = ""

    def start(self) -> "Proxy":
        self._thread.start()
        serve = asyncio.start_server(self._connection, "127.0.0.1", 0, limit=1 << 20, backlog=512, ssl=self.tls)
        self._server = asyncio.run_coroutine_threadsafe(serve, self._loop).result()
        scheme = "https" if self.tls else "http"
        self.url = f"{scheme}://127.0.0.1:{self._server.sockets[0].getsockname()[1]}{self._path}"
        return self

    def end(self) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _close(self) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def fault(
        self, fault: Fault, *, kind=None, key=None, nth=None, every=None, times=None, share=None, where=None
    ) -> Rule:
        """From now on requests of this kind (or any of several), to keys that match, meet it: all of them; only the
        `nth`, or each `every`-th of them; so many `times`; or a `share`. The first rule that applies counts.
        """
        kinds = None if kind is None else frozenset([kind] if isinstance(kind, str) else kind)
        rule = Rule(fault, kinds, key, nth, every, times, share, where)
        with self._lock:
            self.rules.append(rule)
        return rule

    def heal(self) -> None:
        """No faults any more."""
        with self._lock:
            self.rules.clear()

    def forget(self) -> None:
        """Counts from nothing."""
        with self._lock:
            self.requests = []
            self.most_at_once = self._open

    def of(self, *kinds: str, key: str | None = None) -> list[Request]:
        """The requests of these kinds, in the order in which they came."""
        with self._lock:
            all_of_them = list(self.requests)
        return [
            request
            for request in all_of_them
            if (not kinds or request.kind in kinds) and (key is None or re.fullmatch(key, request.key))
        ]

    def count(self, *kinds: str, key: str | None = None) -> int:
        return len(self.of(*kinds, key=key))

    @property
    def counts(self) -> dict[str, int]:
        return dict(Counter(request.kind for request in self.of()))

    @property
    def writes(self) -> list[Request]:
        """What would change something."""
        return self.of(*WRITES)

    # One connection, which carries requests one after the other.

    def _met(self, *_: object) -> None:
        self.connections += 1

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self.tls:
            self._met()
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        upstream: list = []
        abruptly = False
        try:
            while (head := await read_head(reader)) is not None:
                await self._exchange(head, reader, writer, upstream)
        except Closed as closed:
            abruptly = closed.abruptly
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            abruptly = True
        except asyncio.CancelledError:
            abruptly = True
        finally:
            if abruptly:
                linger = struct.pack("ii", 1, 0)
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                writer.transport.abort()
            else:
                writer.close()
            for end in upstream[1:]:
                end.close()

    async def _exchange(self, head: list[bytes], reader, writer, upstream: list) -> None:
        method, target, _ = head[0].decode("latin-1").split(" ", 2)
        request = Request(method, target, headers_of(head), time.monotonic(), self._path)
        request.kind = self.kind_of(request)
        with self._lock:
            self.requests.append(request)
            request.at_once = self._open + 1
            rule = next((rule for rule in self.rules if rule.applies(request, self._dice)), None)
            fault = request.fault = rule.fault if rule else None
            self._open += 1
            self.most_at_once = max(self.most_at_once, self._open)
        try:
            match fault:
                case Answer():
                    await self._answer(fault, request, reader, writer)
                    return
                case Delay():
                    await asyncio.sleep(fault.seconds)
                case Do():
                    await asyncio.get_running_loop().run_in_executor(None, fault.what, request)
                case Reset(after=None, after_sent=None):
                    raise Closed(abruptly=True)
            if not upstream:
                upstream += await asyncio.open_connection(*self.upstream, limit=1 << 20)
            await self._pass_on(request, fault, head, reader, writer, *upstream)
        finally:
            with self._lock:
                self._open -= 1

    async def _answer(self, fault: Answer, request: Request, reader, writer) -> None:
        await skip(reader, request.length)
        request.status = fault.status
        body = fault.body
        if body is None:
            body = f"<Error><Code>{fault.code}</Code><Message>{fault.message}</Message></Error>".encode()
        lines = [f"HTTP/1.1 {fault.status} Injected", "Content-Type: application/xml", f"Content-Length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in fault.headers.items()]
        writer.write("\r\n".join([*lines, "", ""]).encode("latin-1") + (b"" if request.method == "HEAD" else body))
        await writer.drain()

    async def _pass_on(self, request: Request, fault, head, reader, writer, up_reader, up_writer) -> None:
        up_writer.write(b"\r\n".join([*head, b"", b""]))

        def up(piece: bytes) -> None:
            if isinstance(fault, Corrupt) and fault.request:
                piece = spoiled(piece, fault.at % max(request.length, 1) - request.sent)
            up_writer.write(piece)
            request.sent += len(piece)
            if isinstance(fault, Reset) and fault.after_sent is not None and request.sent > fault.after_sent:
                raise Closed(abruptly=True)

        # A server may answer before it has read everything.
        sending = asyncio.ensure_future(pump(reader, up_writer, request.length, up, fault))
        answered = asyncio.ensure_future(read_head(up_reader))
        try:
            status = 100
            while status == 100:
                await asyncio.wait([sending, answered], return_when=asyncio.FIRST_COMPLETED)
                if sending.done():
                    sending.result()
                reply = await answered
                if reply is None:
                    raise Closed(abruptly=True)
                status = int(reply[0].split(b" ")[1])
                if status == 100:
                    writer.write(b"\r\n".join([*reply, b"", b""]))
                    answered = asyncio.ensure_future(read_head(up_reader))
            request.status = status
            if isinstance(fault, Lost):
                raise Closed(abruptly=True)
            if isinstance(fault, Stall) and fault.after is None:
                await asyncio.sleep(fault.seconds)
                raise Closed(abruptly=True)
            writer.write(b"\r\n".join([*reply, b"", b""]))
            headers = headers_of(reply)
            await self._pass_back(request, fault, headers, up_reader, writer)
            await sending
            if reply[0].startswith(b"HTTP/1.0") or "close" in headers.get("connection", "").lower():
                raise Closed
        finally:
            for task in (sending, answered):
                task.cancel()
                if task.done() and not task.cancelled():
                    # Whoever waits for the other one does not hear of it.
                    task.exception()

    async def _pass_back(self, request: Request, fault, headers, up_reader, writer) -> None:
        async def back(piece: bytes) -> None:
            limit = fault.after if isinstance(fault, Reset | Cut | Stall) else None
            if limit is not None and request.received + len(piece) > limit:
                writer.write(piece[: limit - request.received])
                await writer.drain()
                # What was written has to leave this machine before the connection breaks.
                await asyncio.sleep(fault.seconds if isinstance(fault, Stall) else 0.02)
                raise Closed(abruptly=not isinstance(fault, Cut))
            if isinstance(fault, Corrupt) and not fault.request:
                piece = spoiled(piece, fault.at - request.received)
            writer.write(piece)
            request.received += len(piece)
            await writer.drain()
            if isinstance(fault, Slow):
                await asyncio.sleep(len(piece) / fault.rate)

        size = min(PIECE, int(fault.rate / 10)) if isinstance(fault, Slow) else PIECE
        if request.method == "HEAD" or request.status in (204, 304):
            await writer.drain()
        elif "chunked" in headers.get("transfer-encoding", ""):
            while True:
                line = await up_reader.readuntil(b"\r\n")
                writer.write(line)
                left = int(line.split(b";")[0], 16)
                if left == 0:
                    writer.write(await up_reader.readuntil(b"\r\n"))
                    await writer.drain()
                    break
                while left:
                    piece = await up_reader.read(min(left, size))
                    left -= len(piece)
                    if not piece:
                        raise Closed(abruptly=True)
                    await back(piece)
                writer.write(await up_reader.readexactly(2))
        else:
            left = int(headers.get("content-length", 0))
            while left:
                piece = await up_reader.read(min(left, size))
                if not piece:
                    raise Closed(abruptly=True)
                left -= len(piece)
                await back(piece)
        await writer.drain()


async def read_head(reader: asyncio.StreamReader) -> list[bytes] | None:
    """The lines before the body; `None` when nothing more comes."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise
        return None
    return head[:-4].split(b"\r\n")


def headers_of(head: list[bytes]) -> dict[str, str]:
    pairs = (line.decode("latin-1").partition(":") for line in head[1:])
    return {name.strip().lower(): value.strip() for name, _, value in pairs}


async def pump(reader, writer, length: int, pass_on: Callable[[bytes], None], fault) -> None:
    size = min(PIECE, int(fault.rate / 10)) if isinstance(fault, Slow) else PIECE
    while length:
        piece = await reader.read(min(length, size))
        if not piece:
            raise Closed(abruptly=True)
        length -= len(piece)
        pass_on(piece)
        await writer.drain()
        if isinstance(fault, Slow):
            await asyncio.sleep(len(piece) / fault.rate)


async def skip(reader, length: int) -> None:
    while length:
        piece = await reader.read(min(length, PIECE))
        if not piece:
            raise Closed(abruptly=True)
        length -= len(piece)


def spoiled(piece: bytes, at: int) -> bytes:
    """The piece with one byte changed, if it is in there."""
    if not 0 <= at < len(piece):
        return piece
    return piece[:at] + bytes([piece[at] ^ 1]) + piece[at + 1 :]
