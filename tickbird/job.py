"""Jobs as the rest of the program sees them: frozen data, no I/O."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class JobState(StrEnum):
    """Where a job is; `docs/states.md` has a sentence for each."""

    WAITING = "waiting"
    PRIORITIZED = "prioritized"
    DELAYED = "delayed"
    ACTIVE = "active"
    WAITING_CHILDREN = "waiting_children"
    COMPLETED = "completed"
    FAILED = "failed"
    UNKNOWN = "unknown"


class Outcome(StrEnum):
    """How one attempt ended."""

    COMPLETED = "completed"
    RETRIED = "retried"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, order=True)
class QueueRef:
    """Which queue: its name and the prefix of its keys (`bull` unless a user chose another)."""

    name: str
    prefix: str = "bull"

    @property
    def label(self) -> str:
        """The name as shown and as used in URLs: with the prefix where that is not `bull`."""
        return self.name if self.prefix == "bull" else f"{self.prefix}:{self.name}"

    @classmethod
    def from_label(cls, label: str) -> QueueRef:
        """The queue a label names (a queue's name holds no colon, a prefix may)."""
        prefix, _, name = label.rpartition(":")
        return cls(name, prefix or "bull")


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One unit of work as it stands in Redis. Times are epoch milliseconds.

    `data` and `result` are the stored JSON text, untouched (it may come from
    another language and may not even be JSON). `attempts_made` counts finished
    attempts, `attempts_started` also those that were interrupted; `attempts` is
    the total allowed, the first included. `stacktraces` holds one text per failed
    attempt, oldest first.
    """

    id: str
    queue: QueueRef
    state: JobState
    name: str
    data: str
    options: str
    added_at_ms: int
    delay_ms: int = 0
    due_at_ms: int | None = None
    priority: int = 0
    attempts: int = 1
    attempts_made: int = 0
    attempts_started: int = 0
    stalls: int = 0
    replays: int = 0
    started_at_ms: int | None = None
    finished_at_ms: int | None = None
    worker: str = ""
    result: str | None = None
    error: str | None = None
    stacktraces: tuple[str, ...] = ()
    progress: str | None = None
    deferred_failure: str | None = None
    logs: tuple[str, ...] = field(default=())


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSummary:
    """A job as a list shows it: no payload beyond a bounded start of it."""

    id: str
    queue: QueueRef
    state: JobState
    name: str
    data_start: str
    data_bytes: int
    added_at_ms: int
    due_at_ms: int | None
    started_at_ms: int | None
    finished_at_ms: int | None
    attempts: int
    attempts_made: int
    priority: int
    error: str | None
    exists: bool = True
    """False: the id stands in the state's list but the job's hash is gone."""
