"""Waiting for jobs to finish: one reader of the event stream for all who wait on a queue."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from redis.exceptions import RedisError

from tickbird.errors import JobFailed, JobNotFound, JobTimeout, TickbirdError
from tickbird.events import Event, EventReader
from tickbird.job import QueueRef
from tickbird.storage.connection import Connection
from tickbird.storage.keys import QueueKeys
from tickbird.storage.wire import raw_bytes

_LOOK_EVERY_S = 1.0
"""The stream holds a few thousand jobs' events: who waits must not rest on it alone."""


class ResultWaiter:
    """Waits for results on one queue. Its reader runs while somebody waits."""

    def __init__(self, queue: QueueRef, connection: Connection) -> None:
        self._queue = queue
        self._keys = QueueKeys(queue)
        self._connection = connection
        self._waiting: dict[str, list[asyncio.Future[Any]]] = {}
        self._reader: asyncio.Task[None] | None = None

    async def wait(self, job_id: str, timeout_s: float | None) -> Any:
        """The decoded result of a job; see Queue.result for what it raises."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(job_id, []).append(future)
        if self._reader is None:
            self._reader = asyncio.create_task(self._read())
        try:
            async with asyncio.timeout(timeout_s):
                await self._look([job_id])
                return await future
        except TimeoutError as error:
            raise JobTimeout(
                f"job {job_id} of queue {self._queue.label} has not finished within {timeout_s:g} s"
            ) from error
        finally:
            self._forget(job_id, future)

    async def aclose(self) -> None:
        """Stop reading; whoever still waits is cancelled."""
        for futures in self._waiting.values():
            for future in futures:
                future.cancel()
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)

    def _forget(self, job_id: str, future: asyncio.Future[Any]) -> None:
        futures = self._waiting[job_id]
        futures.remove(future)
        if not futures:
            del self._waiting[job_id]

    async def _read(self) -> None:
        """Read events while anybody waits; look at the jobs themselves at first and each second."""
        events = EventReader(self._queue, self._connection)
        try:
            position = await events.last_id()
            while self._waiting:
                gone = await self._look(list(self._waiting))
                position = await self._read_events(events, position)
                for job_id in gone:
                    self._settle(job_id, error=JobNotFound(f"there is no job {job_id}"))
                position = await self._hear_for_a_while(events, position)
        except TickbirdError as error:
            for job_id in list(self._waiting):
                self._settle(job_id, error=error)
        finally:
            self._reader = None
            await events.aclose()

    async def _look(self, ids: list[str]) -> list[str]:
        """Settle what has finished; gives the ids that are gone (their last event may be unread)."""
        pipe = self._connection.reader.pipeline(transaction=False)
        for job_id in ids:
            raw = raw_bytes(job_id)
            pipe.hmget(self._keys.prefix.encode() + raw, "name", "returnvalue", "failedReason")
            pipe.zscore(self._keys.of("completed"), raw)
            pipe.zscore(self._keys.of("failed"), raw)
        try:
            replies = iter(await pipe.execute(raise_on_error=False))
        except (RedisError, OSError):
            return []  # the next look asks again
        gone = []
        for job_id in ids:
            fields, completed, failed = next(replies), next(replies), next(replies)
            if not isinstance(fields, list) or fields[0] is None:
                gone.append(job_id)
            elif isinstance(completed, float):
                self._settle(job_id, result=fields[1] or b"null")
            elif isinstance(failed, float):
                reason = (fields[2] or b"").decode(errors="replace")
                self._settle(job_id, error=JobFailed(reason))
        return gone

    async def _read_events(self, events: EventReader, position: str) -> str:
        while batch := await events.read(position):
            for event in batch:
                self._hear(event)
            position = batch[-1].id
        return position

    async def _hear_for_a_while(self, events: EventReader, position: str) -> str:
        """Listen until it is time to look at the jobs themselves, or nobody waits any more."""
        loop = asyncio.get_running_loop()
        until_s = loop.time() + _LOOK_EVERY_S
        while self._waiting and (left_s := until_s - loop.time()) > 0:
            for event in await events.wait(position, block_s=left_s):
                self._hear(event)
                position = event.id
        return position

    def _hear(self, event: Event) -> None:
        if event.job_id not in self._waiting:
            return
        if event.kind == "completed":
            self._settle(event.job_id, result=event.fields.get("returnvalue", "null").encode())
        elif event.kind == "failed":
            self._settle(event.job_id, error=JobFailed(event.fields.get("failedReason", "")))

    def _settle(
        self, job_id: str, *, result: bytes = b"null", error: Exception | None = None
    ) -> None:
        if error is None:
            try:
                value = msgspec.json.decode(result)
            except (msgspec.DecodeError, UnicodeDecodeError) as not_json:
                error = JobFailed(f"the result is not JSON: {not_json}")
        for future in self._waiting.get(job_id, []):
            if future.done():
                continue
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(value)
