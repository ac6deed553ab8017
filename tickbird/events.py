"""What happens in a queue, as its stream tells it: any client's jobs, any client's events."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

from redis.exceptions import RedisError

from tickbird.job import QueueRef
from tickbird.storage.connection import Connection, unavailable
from tickbird.storage.keys import QueueKeys
from tickbird.storage.wire import text

MAX_EVENTS = 1_000
_LONGEST_BLOCK_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One event. `id` is its position in the stream (`<ms>-<n>`) and so says when.

    `kind` is BullMQ's name: added, waiting, active, delayed, progress, completed, failed,
    stalled, removed, paused, resumed, drained, ... `fields` holds what comes with that kind.
    """

    id: str
    kind: str
    job_id: str | None
    fields: Mapping[str, str]

    @property
    def at_ms(self) -> int:
        """When it was written, by the server's clock."""
        return int(self.id.partition("-")[0])


class EventReader:
    """Reads one queue's stream from a position. `redis` is a URL or an app's Connection.

    The stream is bounded (about 10,000 events): a reader that falls behind misses some, and can
    tell by the ids.
    """

    def __init__(self, queue: QueueRef | str, redis: str | Connection | None = None) -> None:
        ref = queue if isinstance(queue, QueueRef) else QueueRef.from_label(queue)
        self._key = QueueKeys(ref).of("events")
        self._owns_connection = not isinstance(redis, Connection)
        self._connection = redis if isinstance(redis, Connection) else Connection(redis)
        self._waiting: Any = None

    async def read(self, after: str = "0-0", *, limit: int = MAX_EVENTS) -> list[Event]:
        """The events after a position, oldest first, at most 1,000; `0-0` is the beginning."""
        try:
            entries = await self._connection.reader.xrange(
                self._key, min=f"({after}", max="+", count=max(1, min(limit, MAX_EVENTS))
            )
        except (RedisError, OSError) as error:
            raise unavailable(self._connection.url, error) from error
        return [_event(entry_id, fields) for entry_id, fields in entries]

    async def last_id(self) -> str:
        """The position of the newest event: what follows it is new."""
        try:
            newest = await self._connection.reader.xrevrange(self._key, count=1)
        except (RedisError, OSError) as error:
            raise unavailable(self._connection.url, error) from error
        return text(newest[0][0]) if newest else "0-0"

    async def wait(self, after: str, *, block_s: float = 1.0) -> list[Event]:
        """The events after a position as soon as there are any; none after `block_s`."""
        if self._waiting is None:
            self._waiting = self._connection.blocking_client("tickbird:events", _LONGEST_BLOCK_S)
        block_ms = round(min(block_s, _LONGEST_BLOCK_S) * 1_000)
        try:
            streams = await self._waiting.xread(
                {self._key: after}, count=MAX_EVENTS, block=max(1, block_ms)
            )
        except (RedisError, OSError) as error:
            raise unavailable(self._connection.url, error) from error
        return [
            _event(entry_id, fields) for _, entries in streams or [] for entry_id, fields in entries
        ]

    async def follow(self, after: str | None = None) -> AsyncIterator[Event]:
        """Events as they come, from a position on (None: from now); ends when you stop asking."""
        position = after if after is not None else await self.last_id()
        while True:
            for event in await self.wait(position):
                position = event.id
                yield event

    async def aclose(self) -> None:
        """Close the connections, but for an app's."""
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            await waiting.aclose()
            await waiting.connection_pool.disconnect()
        if self._owns_connection:
            await self._connection.aclose()


def _event(entry_id: bytes, raw: Mapping[bytes, bytes]) -> Event:
    fields = {text(name): text(value) for name, value in raw.items()}
    kind = fields.pop("event", "")
    return Event(id=text(entry_id), kind=kind, job_id=fields.pop("jobId", None), fields=fields)
