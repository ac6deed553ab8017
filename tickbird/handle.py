"""What an add gives back: which job it is, and where it stands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from tickbird.inspector import Inspector
    from tickbird.job import Job, JobState, QueueRef

R = TypeVar("R")


class JobHandle(Generic[R]):
    """A job that was added (or found, when its id was known already)."""

    __slots__ = ("_inspector", "created", "id", "queue")

    def __init__(
        self, job_id: str, queue: QueueRef, *, created: bool, inspector: Inspector
    ) -> None:
        self.id = job_id
        self.queue = queue
        self.created = created
        """False: a job of this id was in the queue already and nothing was added."""
        self._inspector = inspector

    def __repr__(self) -> str:
        return f"JobHandle(id={self.id!r}, queue={self.queue.label!r}, created={self.created})"

    async def state(self) -> JobState:
        """Where the job is now; `unknown` once it has been removed."""
        return await self._inspector.get_state(self.queue, self.id)

    async def job(self) -> Job | None:
        """The whole job as it stands now; None once it has been removed."""
        return await self._inspector.get_job(self.queue, self.id)
