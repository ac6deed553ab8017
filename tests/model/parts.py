"""What the model is made of: jobs as they are asked for and as they stand, and a queue's places."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from tests.model.keyspace import Event


@dataclass(frozen=True, slots=True)
class Link:
    """To a parent: the key of its hash, and the flag for this child's final failure."""

    key: str
    flag: str = ""

    @property
    def json(self) -> dict[str, Any]:
        queue, _, job_id = self.key.rpartition(":")
        return {"id": job_id, "queueKey": queue, **({self.flag: True} if self.flag else {})}

    @property
    def options(self) -> dict[str, Any]:
        queue, _, job_id = self.key.rpartition(":")
        flag = {self.flag: True} if self.flag else {}
        return {"parent": {"id": job_id, "queue": queue}, **flag}


@dataclass(frozen=True, slots=True, kw_only=True)
class Deduplication:
    """How an add is deduplicated; `ttl_ms` 0 = until the owner has finished."""

    key: str
    ttl_ms: int = 0
    extend: bool = False
    replace: bool = False
    keep_last: bool = False
    reschedule: bool = False


@dataclass(slots=True, kw_only=True)
class NewJob:
    """A job as it is asked for."""

    name: str
    data: str = "{}"
    options: dict[str, Any] = field(default_factory=dict)
    id: str = ""
    delay_ms: int = 0
    priority: int = 0
    lifo: bool = False
    parent: Link | None = None
    dedup: Deduplication | None = None
    schedule: str | None = None
    has_children: bool = False


@dataclass(slots=True, kw_only=True)
class Job:
    """A job that is stored. None: the hash has no such field."""

    id: str
    queue: Queue
    name: str
    data: str
    options: dict[str, Any]
    timestamp_ms: int
    delay_ms: int
    priority: int
    parent: Link | None = None
    schedule: str | None = None
    dedup: str | None = None
    started_ms: int | None = None
    starts: int | None = None
    attempts_made: int | None = None
    stalls: int | None = None
    deferred: str | None = None
    result: str | None = None
    reason: str | None = None
    traces: str | None = None
    finished_ms: int | None = None
    ready_ms: int | None = None
    replays: int | None = None
    pending: set[str] = field(default_factory=set)
    processed: dict[str, str] = field(default_factory=dict)
    ignored: dict[str, str] = field(default_factory=dict)
    unsuccessful: dict[str, float] = field(default_factory=dict)

    @property
    def key(self) -> str:
        return self.queue.prefix + self.id

    def hash(self) -> dict[str, Any]:
        fields = {
            "name": self.name, "data": self.data, "opts": self.options,
            "timestamp": self.timestamp_ms, "delay": self.delay_ms, "priority": self.priority,
            "parentKey": self.parent and self.parent.key, "parent": self.parent and self.parent.json,
            "rjk": self.schedule, "deid": self.dedup, "processedOn": self.started_ms,
            "ats": self.starts, "atm": self.attempts_made, "stc": self.stalls,
            "defa": self.deferred, "returnvalue": self.result, "failedReason": self.reason,
            "stacktrace": self.traces, "finishedOn": self.finished_ms, "tb:rdy": self.ready_ms,
            "tb:gen": self.replays,
        }  # fmt: skip
        return {
            name: str(value) if isinstance(value, int) else value
            for name, value in fields.items()
            if value is not None
        }

    def wait_ms(self, now_ms: int) -> int | None:
        """How long it has waited for a start now; None where its fields do not say."""
        ready_ms = self.ready_ms
        if ready_ms is None and self.started_ms is None:
            ready_ms = self.timestamp_ms + int(self.options.get("delay", 0))
        if ready_ms is None or ready_ms < (self.started_ms or 0):
            return None
        return max(0, now_ms - ready_ms)


@dataclass(slots=True)
class Lock:
    """A worker's right to a job; without a token the lock's key is gone."""

    token: str | None
    deadline_ms: int


@dataclass(slots=True)
class Owner:
    """Which job a dedup key stands for, and until when (None: until it has finished)."""

    id: str
    ends_ms: int | None


@dataclass(slots=True)
class Schedule:
    """A schedule's record without its count, and when its pending iteration is due."""

    due_ms: int
    record: dict[str, Any]
    iterations: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How an attempt ends."""

    outcome: str
    text: str = ""
    traces: str = ""
    delay_ms: int = 0
    keep_count: int = -1
    keep_age_s: int = 0
    attempts: int = 1
    reason: str = ""
    lifo: bool = False
    started: bool = True
    wait_ms: int | None = None
    run_ms: int = 0


class Queue:
    """One queue: who is where in it. Lists have first what is served, or has begun, first."""

    def __init__(self, name: str, prefix: str) -> None:
        self.name = name
        self.prefix = f"{prefix}:{name}:"
        self.wait: list[str] = []
        self.active: list[str] = []
        self.prioritized: dict[str, float] = {}
        self.delayed: dict[str, float] = {}
        self.waiting_children: dict[str, float] = {}
        self.completed: dict[str, float] = {}
        self.failed: dict[str, float] = {}
        self.locks: dict[str, Lock] = {}
        self.owners: dict[str, Owner] = {}
        self.proposals: dict[str, tuple[str, NewJob]] = {}
        self.schedules: dict[str, Schedule] = {}
        self.cancels: dict[str, str] = {}
        self.limiter: tuple[int, int] | None = None
        self.counter = 0
        self.turns = 0
        self.paused = False
        self.concurrency: int | None = None
        self.stats: Counter[str] = Counter()
        self.events: list[Event] = []

    @property
    def sets(self) -> dict[str, dict[str, float]]:
        return {
            "prioritized": self.prioritized,
            "delayed": self.delayed,
            "waiting-children": self.waiting_children,
            "completed": self.completed,
            "failed": self.failed,
        }

    def members(self, suffix: str) -> Iterable[str]:
        return {"wait": self.wait, "active": self.active, **self.sets}[suffix]

    def tell(self, kind: str, **fields: object) -> None:
        self.events.append((kind, *(f"{name}={value}" for name, value in fields.items())))

    def count(self, field_name: str, by: int = 1) -> None:
        self.stats[field_name] += by

    def counted(self, name: str) -> str:
        if not self.stats[f"task:{name}"]:
            self.stats[f"task:{name}"] = 1
            self.stats["tasks"] += 1
        return name

    @property
    def is_held(self) -> bool:
        """Whether no job may start now: paused, or as many run as may."""
        return self.paused or (
            self.concurrency is not None and len(self.active) >= self.concurrency
        )

    def push(self, job: Job, *, front: bool = False) -> None:
        """Behind all of its priority. `front` puts a job without priority before all others."""
        if job.priority:
            self.turns += 1
            self.prioritized[job.id] = job.priority * 2**32 + self.turns
        elif front:
            self.wait.insert(0, job.id)
        else:
            self.wait.append(job.id)

    def put_back(self, job: Job) -> None:
        """Before all of its priority."""
        if job.priority:
            self.prioritized[job.id] = job.priority * 2**32
        else:
            self.wait.insert(0, job.id)

    def delay(self, job: Job, due_ms: int) -> None:
        """Behind all that are due in the same millisecond."""
        first, last = due_ms * 4096, due_ms * 4096 + 4095
        places = [score for score in self.delayed.values() if first <= score <= last]
        self.delayed[job.id] = min(max(places) + 1, last) if places else first
        self.tell("delayed", jobId=job.id, delay=due_ms)

    def leave(self, job_id: str) -> str:
        """Out of whatever holds the id; says what that was."""
        for suffix, members in self.sets.items():
            if members.pop(job_id, None) is not None:
                return suffix
        for suffix, ids in (("active", self.active), ("wait", self.wait)):
            if job_id in ids:
                ids.remove(job_id)
                if suffix == "active":
                    self.locks.pop(job_id, None)
                return suffix
        raise AssertionError(f"the model's own job {job_id} is nowhere")

    def is_next_iteration(self, job_id: str) -> bool:
        return any(job_id == f"repeat:{i}:{s.due_ms}" for i, s in self.schedules.items())


def in_order(members: dict[str, float]) -> list[tuple[str, float]]:
    """A sorted set's members by score, then by id."""
    return sorted(members.items(), key=lambda item: (item[1], item[0]))
