"""A link on loopback: a proxy that delays, limits the rate, and counts what goes through.

wan.py PORT TARGET_PORT ROUND_TRIP_S MBIT_PER_S COUNTS_FILE

All connections share the rate, each direction has its own. `MBIT_PER_S` of 0 is no limit.
The file holds the bytes that went up and down.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from pathlib import Path

PIECE = 32 << 10
# What a connection may have on its way. More than the link holds, so that only the rate limits it.
AHEAD = 4 << 20


class Link:
    def __init__(self, target: int, round_trip: float, mbit: float, counts: Path) -> None:
        self.target, self.delay, self.rate, self.counts = target, round_trip / 2, mbit * 125_000, counts
        self.free = [0.0, 0.0]  # when each direction has sent what it was given
        self.passed = [0, 0]

    async def connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A connection takes a round trip to be made.
        await asyncio.sleep(2 * self.delay)
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self.target)
        await asyncio.gather(self.pump(reader, there_writer, 0), self.pump(there_reader, writer, 1))

    async def pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: int) -> None:
        loop = asyncio.get_running_loop()
        queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(AHEAD // PIECE)

        async def deliver() -> None:
            while True:
                due, piece = await queue.get()
                if not piece:
                    break
                if (wait := due - loop.time()) > 0:
                    await asyncio.sleep(wait)
                writer.write(piece)
                await writer.drain()
            writer.close()

        delivery = asyncio.create_task(deliver())
        with contextlib.suppress(OSError):
            while piece := await reader.read(PIECE):
                self.passed[way] += len(piece)
                if self.rate:
                    self.free[way] = max(self.free[way], loop.time()) + len(piece) / self.rate
                await queue.put((max(self.free[way], loop.time()) + self.delay, piece))
        await queue.put((0.0, b""))
        with contextlib.suppress(OSError):
            await delivery
        self.counts.write_text(f"{self.passed[0]} {self.passed[1]}")


async def main(port: int, link: Link) -> None:
    server = await asyncio.start_server(link.connection, "127.0.0.1", port, backlog=64)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(
        main(int(sys.argv[1]), Link(int(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4]), Path(sys.argv[5])))
    )
