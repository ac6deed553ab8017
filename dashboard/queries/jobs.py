"""Reads of jobs on behalf of pages, shared: many viewers of one list cost one read a second."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from dashboard.views import JobRow
from tickbird.job import JobState

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tickbird.clock import Clock
    from tickbird.job import Job, JobSummary, QueueRef

PAGE = 50
FRESH_S = 0.9
KEPT = 256
READ_TIMEOUT_S = 5.0


class JobSource(Protocol):
    """What is read from: tickbird's Inspector."""

    async def list_jobs(
        self, queue: QueueRef, state: JobState, *, offset: int = 0, limit: int = 50
    ) -> list[JobSummary]:
        """A bounded part of a state's list."""

    async def get_job(self, queue: QueueRef, job_id: str) -> Job | None:
        """One job, whole."""


@dataclass(slots=True)
class JobReads:
    """Reads through a memory of one second; concurrent askers share one read."""

    source: JobSource
    clock: Clock
    _reads: OrderedDict[tuple[Any, ...], tuple[float, asyncio.Task[Any]]] = field(
        default_factory=OrderedDict, init=False
    )

    async def page(self, queue: QueueRef, state: JobState, offset: int = 0) -> list[JobSummary]:
        """Up to 50 jobs of a state from `offset` on."""
        found: list[JobSummary] = await self._shared(
            ("page", queue, state, offset),
            lambda: self.source.list_jobs(queue, state, offset=offset, limit=PAGE),
        )
        return found

    async def job(self, queue: QueueRef, job_id: str) -> Job | None:
        """One job, or None."""
        found: Job | None = await self._shared(
            ("job", queue, job_id), lambda: self.source.get_job(queue, job_id)
        )
        return found

    def forget(self) -> None:
        """Read anew from now on: something was just changed."""
        self._reads.clear()

    async def _shared(self, key: tuple[Any, ...], read: Callable[[], Awaitable[Any]]) -> Any:
        now_s = self.clock.monotonic_s()
        known = self._reads.get(key)
        if known and now_s - known[0] < FRESH_S and not _failed(known[1]):
            return await asyncio.shield(known[1])
        task = asyncio.create_task(_bounded(read))
        self._reads[key] = (now_s, task)
        self._reads.move_to_end(key)
        while len(self._reads) > KEPT:
            self._reads.popitem(last=False)
        return await asyncio.shield(task)


def _failed(task: asyncio.Task[Any]) -> bool:
    return task.done() and (task.cancelled() or task.exception() is not None)


async def _bounded(read: Callable[[], Awaitable[Any]]) -> Any:
    async with asyncio.timeout(READ_TIMEOUT_S):
        return await read()


TIME_TITLES = {
    JobState.DELAYED: "due",
    JobState.ACTIVE: "running for",
    JobState.COMPLETED: "finished",
    JobState.FAILED: "failed",
}


def job_row(job: JobSummary) -> JobRow:
    """A job as a list shows it."""
    finished_ms = job.finished_at_ms
    at_ms = {
        JobState.DELAYED: job.due_at_ms,
        JobState.ACTIVE: job.started_at_ms,
        JobState.COMPLETED: finished_ms,
        JobState.FAILED: finished_ms,
    }.get(job.state, job.added_at_ms)
    took_ms = None
    if finished_ms and job.started_at_ms and finished_ms >= job.started_at_ms:
        took_ms = finished_ms - job.started_at_ms
    return JobRow(
        id=job.id,
        queue=job.queue.label,
        state=str(job.state),
        name=job.name,
        exists=job.exists,
        at_ms=at_ms,
        took_ms=took_ms,
        data_start=job.data_start,
        data_bytes=job.data_bytes,
        attempts=job.attempts,
        attempts_made=job.attempts_made,
        priority=job.priority,
        error=job.error or "",
    )
