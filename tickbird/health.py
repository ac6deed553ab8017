"""Two answers over HTTP about a worker: is the process alive, is it ready.

Alive is not ready: a worker that has lost Redis answers the first and not the second. Ready means
that each of its queues was looked into lately, by an answered call; with all slots in use nothing
is looked for, and an answered renewal of the locks counts.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence

from tickbird.clock import Clock, SystemClock
from tickbird.errors import InvalidOption
from tickbird.fetch import FetchLoop
from tickbird.lock import LockKeeper
from tickbird.slots import Slots

READY_WITHIN_S = 10.0
_REQUEST_WITHIN_S = 5.0
_MAX_REQUEST_BYTES = 8 * 1024
_REASONS = {200: "OK", 404: "Not Found", 503: "Service Unavailable"}


class HealthServer:
    """Serves `/healthz` and `/readyz` for probes; nothing else, to nobody in particular."""

    def __init__(
        self,
        loops: Sequence[FetchLoop],
        *,
        host: str,
        port: int,
        is_stopping: asyncio.Event,
        slots: Slots,
        keeper: LockKeeper,
        clock: Clock | None = None,
    ) -> None:
        self._loops = loops
        self._host = host
        self._port = port
        self._is_stopping = is_stopping
        self._slots = slots
        self._keeper = keeper
        self._clock = clock or SystemClock()
        self._server: asyncio.Server | None = None

    async def start(self) -> int:
        """Listen; gives the port (the one asked for, or a free one for 0)."""
        try:
            self._server = await asyncio.start_server(
                self._serve, self._host, self._port, limit=_MAX_REQUEST_BYTES
            )
        except OSError as error:
            raise InvalidOption(
                f"cannot serve health checks on {self._host}:{self._port}: {error.strerror}"
            ) from error
        return int(self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """Listen no more."""
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    def answer(self, path: str) -> tuple[int, dict[str, object]]:
        """Status and body for a path."""
        if path == "/healthz":
            return 200, {"status": "alive"}
        if path != "/readyz":
            return 404, {"status": "not found"}
        late = [loop.queue.label for loop in self._loops if not self._is_ready(loop)]
        if self._is_stopping.is_set():
            return 503, {"status": "stopping"}
        if late:
            return 503, {"status": "no answer from Redis", "queues": late}
        return 200, {"status": "ready"}

    def _is_ready(self, loop: FetchLoop) -> bool:
        now_s = self._clock.monotonic_s()
        if loop.looked_at_s is not None and now_s - loop.looked_at_s <= READY_WITHIN_S:
            return True
        is_full = self._slots.free == 0 and loop.looked_at_s is not None
        return is_full and now_s - self._keeper.renewed_at_s <= self._keeper.lock_s

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_REQUEST_WITHIN_S):
                request = await reader.readuntil(b"\r\n\r\n")
                parts = request.split(b" ", 2)
                path = parts[1].decode("ascii", "replace").partition("?")[0] if parts[1:] else ""
                status, body = self.answer(path)
                text = json.dumps(body).encode()
                head = (
                    f"HTTP/1.1 {status} {_REASONS[status]}\r\nContent-Type: application/json\r\n"
                    f"Content-Length: {len(text)}\r\nCache-Control: no-store\r\n"
                    "Connection: close\r\n\r\n"
                )
                writer.write(head.encode() + text)
                await writer.drain()
        except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            return  # a probe that asks nothing we can read gets nothing
        finally:
            writer.close()
