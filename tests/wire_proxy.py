"""Stands between ssh and a server: counts bytes, cuts connections, stalls them, slows them down. Loopback only.

wire = wire_to(host)
wire.cut_after(5 << 20)
sypy.sync(…, ssh=host.through(wire.port))
assert wire.bytes < 6 << 20
"""

import socket
import struct
import threading
import time
from contextlib import suppress

PIECE = 64 << 10


class Wire:
    def __init__(self, port: int) -> None:
        self.target = port
        self.up = self.down = 0
        # Bytes that each connection carried.
        self.carried: list[int] = []
        self.rate: float | None = None
        # Connections that are taken.
        self.at_most: int | None = None
        self._limit: int | None = None
        self._refuse = self._refuse_later = False
        self._flowing = threading.Event()
        self._flowing.set()
        self._lock = threading.Lock()
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    @property
    def connections(self) -> int:
        return len(self.carried)

    @property
    def bytes(self) -> int:
        """All that went through, in both directions."""
        return self.up + self.down

    def cut_after(self, count: int, *, refuse: bool = False) -> None:
        """Once so many more bytes have gone through, all connections break; `refuse`: no others are taken then."""
        with self._lock:
            self._limit, self._refuse_later = self.bytes + count, refuse

    def cut(self) -> None:
        """All connections break now."""
        with self._lock:
            pairs, self._pairs = self._pairs, []
        for pair in pairs:
            for end in pair:
                # The peer is told at once, whatever has yet to be read.
                with suppress(OSError):
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                _end(end)

    @property
    def was_cut(self) -> bool:
        return self._limit is None

    def heal(self) -> None:
        self._refuse, self.rate = False, None
        self._flowing.set()

    def stall(self) -> None:
        """Nothing goes through any more, in either direction."""
        self._flowing.clear()

    def end(self) -> None:
        self._listener.close()
        self._flowing.set()
        self.cut()

    def _serve(self) -> None:
        while True:
            try:
                ours, _ = self._listener.accept()
            except OSError:
                return
            if self._refuse or (self.at_most is not None and self.connections >= self.at_most):
                ours.close()
                continue
            theirs = socket.create_connection(("127.0.0.1", self.target))
            with self._lock:
                number = len(self.carried)
                self.carried.append(0)
                self._pairs.append((ours, theirs))
            for args in [(ours, theirs, True, number), (theirs, ours, False, number)]:
                threading.Thread(target=self._pump, args=args, daemon=True).start()

    def _pump(self, source: socket.socket, dest: socket.socket, up: bool, number: int) -> None:
        try:
            while piece := source.recv(PIECE):
                self._flowing.wait()
                if self.rate:
                    time.sleep(len(piece) / self.rate)
                dest.sendall(piece)
                with self._lock:
                    self.up, self.down = self.up + up * len(piece), self.down + (not up) * len(piece)
                    self.carried[number] += len(piece)
                    over = self._limit is not None and self.bytes >= self._limit
                    if over:
                        self._limit, self._refuse = None, self._refuse_later
                if over:
                    self.cut()
        except OSError:
            pass
        _end(source)
        _end(dest)


def _end(end: socket.socket) -> None:
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    end.close()
