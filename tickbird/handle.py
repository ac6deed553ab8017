"""What an add gives back: which job it is, where it stands, what it gave."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from tickbird.durations import Duration
from tickbird.job import Job, JobState, QueueRef

if TYPE_CHECKING:
    from collections.abc import Sequence

R = TypeVar("R")


class HandledQueue(Protocol):
    """What a handle asks of its queue."""

    async def state(self, job_id: str) -> JobState:
        """Where a job is."""

    async def job(self, job_id: str) -> Job | None:
        """A job whole."""

    async def result(self, job_id: str, timeout: Duration | None = None) -> Any:  # noqa: ASYNC109
        """A job's result, waited for."""

    async def cancel(self, job_id: str, reason: str = "cancelled") -> bool:
        """Cancel a job."""

    async def replay(self, job_ids: Sequence[str], *, state: JobState = ...) -> list[bool]:
        """Replay jobs."""


class JobHandle(Generic[R]):
    """A job that was added (or found, when its id or dedup key was known already)."""

    __slots__ = ("_queue", "created", "id", "queue")

    def __init__(self, job_id: str, ref: QueueRef, *, created: bool, queue: HandledQueue) -> None:
        self.id = job_id
        self.queue = ref
        self.created = created
        """False: a job of this id or dedup key was there already and nothing was added."""
        self._queue = queue

    def __repr__(self) -> str:
        return f"JobHandle(id={self.id!r}, queue={self.queue.label!r}, created={self.created})"

    async def state(self) -> JobState:
        """Where the job is now; `unknown` once it has been removed."""
        return await self._queue.state(self.id)

    async def job(self) -> Job | None:
        """The whole job as it stands now; None once it has been removed."""
        return await self._queue.job(self.id)

    async def result(self, timeout: Duration | None = None) -> R:  # noqa: ASYNC109
        """What the job returned, waited for: see Queue.result."""
        result: R = await self._queue.result(self.id, timeout)
        return result

    async def cancel(self, reason: str = "cancelled") -> bool:
        """Cancel the job, waiting or running: see Queue.cancel."""
        return await self._queue.cancel(self.id, reason)

    async def replay(self) -> bool:
        """Run a failed job again as new; False when it is not among the failed."""
        (replayed,) = await self._queue.replay([self.id])
        return replayed
