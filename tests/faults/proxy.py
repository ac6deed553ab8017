"""A proxy between a client and the server that loses replies, for testing what a lost reply does."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress


class LossyProxy:
    """Forwards to a unix socket; with probability `loss` a reply is dropped and the line cut.

    A dropped reply belongs to a command the server has carried out: the client cannot know.
    """

    def __init__(self, target: str, *, seed: int) -> None:
        self._target = target
        self._rand = random.Random(seed)
        self.loss = 0.0
        self._instead: list[bytes] = []
        self._may_speak = asyncio.Event()
        self._may_speak.set()
        self.dropped = 0
        self.url = ""
        self._lines: set[asyncio.Task[None]] = set()

    def answer_instead(self, *replies: str) -> None:
        """Answer the next script calls with these error replies; the server never sees them."""
        self._instead += [f"-{reply}\r\n".encode() for reply in replies]

    def fall_silent(self) -> None:
        """Hold back every reply, without cutting the lines."""
        self._may_speak.clear()

    def speak(self) -> None:
        """Let replies through again, the held ones first."""
        self._may_speak.set()

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = asyncio.create_task(self._serve(reader, writer))
        self._lines.add(line)
        line.add_done_callback(self._lines.discard)

    async def aclose(self) -> None:
        for line in list(self._lines):
            line.cancel()
        await asyncio.gather(*self._lines, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            up_reader, up_writer = await asyncio.open_unix_connection(self._target)
        except OSError:
            writer.close()
            return
        forward = asyncio.create_task(self._forward(reader, writer, up_writer))
        try:
            # A client that went away in between lost nothing it still waits for.
            while chunk := await up_reader.read(1 << 20):
                await self._may_speak.wait()
                if self._rand.random() < self.loss:
                    self.dropped += 1
                    break
                writer.write(chunk)
                await writer.drain()
        except ConnectionError:
            return
        finally:
            forward.cancel()
            for end in (writer, up_writer):
                end.close()

    async def _forward(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        up_writer: asyncio.StreamWriter,
    ) -> None:
        with suppress(OSError):
            while chunk := await reader.read(1 << 20):
                if self._instead and b"EVAL" in chunk:
                    writer.write(self._instead.pop(0))  # as a server that refuses does: undone
                else:
                    up_writer.write(chunk)
                    await up_writer.drain()
        up_writer.close()


@asynccontextmanager
async def lossy_proxy(url: str, *, seed: int) -> AsyncIterator[LossyProxy]:
    """A proxy in front of a unix:// server, on a free port of the loopback."""
    proxy = LossyProxy(url.removeprefix("unix://"), seed=seed)
    server = await asyncio.start_server(proxy.accept, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    proxy.url = f"redis://127.0.0.1:{port}/0"
    try:
        yield proxy
    finally:
        server.close()
        await proxy.aclose()
