"""The internet on loopback: whoever goes through this proxy finds under each name what a test put there.

    web = Web(authority)
    web.serve("sts.amazonaws.com/", lambda asked: "<AssumeRole…/>")
    sypy.CloudClientOptions(proxy_url=web.url, ca_bundle=authority.bundle)

Names in HTTPS URLs get certificates of the tests' own authority. What is asked of the server itself, without a proxy, is found
under "here": `web.serve("here/token", …)` answers at `web.url + "/token"`. Where the port is not that of HTTPS, it is a
server on loopback that is meant, and gets it.
"""

import contextlib
import dataclasses
import json
import re
import socket
import threading
import urllib.parse
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tls import Authority


@dataclasses.dataclass
class Asked:
    method: str
    # Host and path.
    place: str
    query: dict[str, str]
    headers: Mapping[str, str]
    body: bytes

    @property
    def form(self) -> dict[str, str]:
        return dict(urllib.parse.parse_qsl(self.body.decode()))


# A body: text, or an object for JSON; or a status and a body.
Reply = str | dict | tuple[int, str | dict]


def tunnel(one: socket.socket, other: socket.socket) -> None:
    """Passes on what comes, both ways, until both have said everything."""

    def pass_on(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    back = threading.Thread(target=pass_on, args=(other, one), daemon=True)
    back.start()
    pass_on(one, other)
    back.join()
    other.close()


class Web:
    def __init__(self, authority: Authority) -> None:
        self.authority = authority
        self.asked: list[Asked] = []
        self.places: list[tuple[str, Callable[[Asked], Reply]]] = []
        web = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            host = "here"

            def do_CONNECT(self):
                self.host, _, port = self.path.partition(":")
                self.send_response(200)
                self.end_headers()
                if port != "443":
                    tunnel(self.connection, socket.create_connection((self.host, int(port))))
                    self.close_connection = True
                    return
                self.connection = web.authority.server(host=self.host).wrap_socket(self.connection, server_side=True)
                self.rfile, self.wfile = self.connection.makefile("rb"), self.connection.makefile("wb", buffering=0)

            def do_GET(self):
                path, _, query = self.path.partition("?")
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                asked = Asked(
                    self.command,
                    self.host + path,
                    dict(urllib.parse.parse_qsl(query, keep_blank_values=True)),
                    self.headers,
                    body,
                )
                status, reply = web.answer(asked)
                data = (json.dumps(reply) if isinstance(reply, dict) else reply).encode()
                self.send_response(status)
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_POST = do_PUT = do_HEAD = do_GET  # noqa: N815

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.host = f"127.0.0.1:{self.server.server_address[1]}"
        self.url = f"http://{self.host}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def end(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def serve(self, place: str, reply: Callable[[Asked], Reply] | Reply) -> None:
        """`place` is a regular expression for host and path. What was said last counts."""
        self.places.insert(0, (place, reply if callable(reply) else lambda _: reply))

    def answer(self, asked: Asked) -> tuple[int, str | dict]:
        self.asked.append(asked)
        for place, reply in self.places:
            if re.fullmatch(place, asked.place):
                answer = reply(asked)
                return answer if isinstance(answer, tuple) else (200, answer)
        return 404, ""

    def of(self, place: str) -> list[Asked]:
        return [asked for asked in self.asked if re.fullmatch(place, asked.place)]
