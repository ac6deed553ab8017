"""What a running task knows of its job, and may write of it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import msgspec

from tickbird.flow import OnFailure, Parent
from tickbird.handle import JobHandle
from tickbird.job import QueueRef
from tickbird.queue import Queue
from tickbird.storage.keys import QueueKeys
from tickbird.storage.wire import HARD_MAX_DATA_BYTES, TakenJob, encode_data, packed, text

MAX_LOG_LINES = 1_000
MAX_LOG_BYTES = 16 * 1024

T = TypeVar("T")


class Context:
    """Given to a task whose first parameter is annotated with it.

    Every write is refused with LockLost once the job may be another worker's. In a sync task use
    `ctx.sync`, whose methods block instead of being awaited.
    """

    def __init__(self, job: TakenJob, queue: Queue, loop: asyncio.AbstractEventLoop) -> None:
        self._job = job
        self._queue = queue
        self._loop = loop
        self.job_id = text(job.id)
        self.name = job.name
        self.queue: QueueRef = queue.ref
        self.attempt = job.attempts_made + 1
        """Which attempt this is, from 1."""
        self.attempts = job.options.attempts
        self.telemetry = job.options.telemetry
        """What the producer's tracer sent along, in any language; None: nothing."""
        self.is_cancelled = False
        """Set when the job is no longer ours to run: it was cancelled, its lock is lost, or the
        worker stops. Async tasks are cancelled then; threads may look here."""

    @property
    def sync(self) -> SyncContext:
        """The same for a task that runs in a thread."""
        return SyncContext(self)

    async def progress(self, value: Any) -> None:
        """Say how far the job is: a number, or anything JSON can say (8 kB at most)."""
        await self._write("progress", encode_data(value, 8 * 1024))

    async def log(self, *lines: str) -> None:
        """Add lines to the job's log, each at most 16 kB; the newest 1,000 (`keep_logs`) stay."""
        stored = [line.encode("utf-8", "replace")[:MAX_LOG_BYTES] for line in lines]
        await self._write("log", *stored)

    async def update_data(self, data: Any) -> None:
        """Replace the job's data: what its next attempt will be called with."""
        await self._write("data", encode_data(data, HARD_MAX_DATA_BYTES))

    async def add_child(
        self,
        name: str,
        data: Any = msgspec.UNSET,
        *,
        queue: str | None = None,
        on_failure: OnFailure | None = None,
        **options: Any,
    ) -> JobHandle[Any]:
        """Add a job this one is to wait for; then raise WaitForChildren.

        Give it a `job_id` made of this job's, or the next run adds it again.
        """
        parent = Parent(queue=self.queue, job_id=self.job_id, on_failure=on_failure)
        target = self._queue if queue is None else self._queue.sibling(queue)
        return await target.add_child(parent, name, data, **options)

    async def children_results(self) -> dict[str, Any]:
        """Results of children that have completed, by job key (`<prefix>:<queue>:<id>`)."""
        key = f"{QueueKeys(self.queue).job(self.job_id)}:processed"
        stored = await self._queue.connection.reader.hgetall(key)
        return {text(child): msgspec.json.decode(result) for child, result in stored.items()}

    async def _write(self, what: str, *values: bytes) -> None:
        keep = self._job.options.keep_logs
        await self._queue.run_in_lane(
            "update_attempt",
            self._job.id,
            self._job.token,
            what,
            msgspec.msgpack.encode([packed(value) for value in values]),
            MAX_LOG_LINES if keep is None else min(keep, MAX_LOG_LINES),
        )


class SyncContext:
    """Context for a thread: each method waits until it is done."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def progress(self, value: Any) -> None:
        """As Context.progress."""
        self._wait(self._context.progress(value))

    def log(self, *lines: str) -> None:
        """As Context.log."""
        self._wait(self._context.log(*lines))

    def update_data(self, data: Any) -> None:
        """As Context.update_data."""
        self._wait(self._context.update_data(data))

    def add_child(self, name: str, data: Any = msgspec.UNSET, **options: Any) -> JobHandle[Any]:
        """As Context.add_child."""
        return self._wait(self._context.add_child(name, data, **options))

    def children_results(self) -> dict[str, Any]:
        """As Context.children_results."""
        return self._wait(self._context.children_results())

    def _wait(self, call: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(call, self._context._loop).result()  # noqa: SLF001
