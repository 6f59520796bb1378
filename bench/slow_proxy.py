"""A proxy that passes bytes on and holds back each answer for a while: the distance to a real service.

slow_proxy.py PORT TARGET_PORT SECONDS
"""

from __future__ import annotations

import asyncio
import sys


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay: float) -> None:
    """Every piece leaves `delay` seconds after it came, without slowing those behind it."""
    loop, pieces = asyncio.get_running_loop(), asyncio.Queue[tuple[float, bytes]](64)

    async def send() -> None:
        while True:
            due, piece = await pieces.get()
            if (wait := due - loop.time()) > 0:
                await asyncio.sleep(wait)
            if not piece:
                break
            writer.write(piece)
            await writer.drain()
        writer.close()

    sender = asyncio.create_task(send())
    try:
        while piece := await reader.read(1 << 18):
            await pieces.put((loop.time() + delay, piece))
    except ConnectionError:
        pass
    await pieces.put((0.0, b""))
    await asyncio.gather(sender, return_exceptions=True)


async def main(port: int, target: int, delay: float) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", target, limit=1 << 20)
        await asyncio.gather(pump(reader, there_writer, 0.0), pump(there_reader, writer, delay))

    server = await asyncio.start_server(serve, "127.0.0.1", port, limit=1 << 20, backlog=512)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))
