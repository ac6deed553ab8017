"""One queue's figures at one moment: which commands give them, and what the replies mean.

Two rounds, each sent for all queues at once: counts and who is there, then details of those.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from tickbird.job import JobState, QueueRef
from tickbird.stats import QueueStats
from tickbird.storage.counters import stats_from_hash
from tickbird.storage.keys import QueueKeys
from tickbird.storage.wire import decode_options, number, ready_at_ms, text

WORKER_TTL_S = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningJob:
    """A job in a worker's slot."""

    id: str
    name: str
    started_at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerInfo:
    """A live Tickbird worker as it describes itself; `running` names jobs of one queue only."""

    id: str
    host: str
    pid: int
    version: str
    started_at_ms: int
    seen_at_ms: int
    queues: tuple[str, ...]
    concurrency: int
    busy: int
    stopping: bool
    running: tuple[RunningJob, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueSample:
    """One queue at one moment. `stats` only ever grow; differences make rates."""

    queue: QueueRef
    at_ms: int
    counts: Mapping[JobState, int]
    depth: int
    paused: bool
    oldest_ready_at_ms: int | None
    stats: QueueStats
    workers: tuple[WorkerInfo, ...]
    foreign_workers: int
    is_shared: bool = False
    """Clients of BullMQ use the queue, too: default retention leaves it alone."""
    oldest_failed_at_ms: int | None = None
    """When the oldest of the dead letters failed."""
    error: str | None = None


def count_commands(queue: QueueRef, now_ms: int) -> list[tuple[Any, ...]]:
    """The first round."""
    keys = QueueKeys(queue)
    return [
        ("HMGET", keys.of("meta"), "paused", "version"),
        ("LLEN", keys.of("wait")),
        ("LLEN", keys.of("paused")),
        ("ZCARD", keys.of("prioritized")),
        ("ZCARD", keys.of("delayed")),
        ("ZCOUNT", keys.of("delayed"), "-inf", (now_ms + 1) * 4096 - 1),
        ("LLEN", keys.of("active")),
        ("ZCARD", keys.of("waiting-children")),
        ("ZCARD", keys.of("completed")),
        ("ZCARD", keys.of("failed")),
        ("HGETALL", keys.stats),
        ("ZRANGE", keys.workers, now_ms - WORKER_TTL_S * 1_000, "+inf", "BYSCORE", "LIMIT", 0, 500),
        ("LINDEX", keys.of("wait"), -1),
        ("LINDEX", keys.of("paused"), -1),
        ("ZRANGE", keys.of("prioritized"), 0, 0),
        ("ZRANGE", keys.of("failed"), 0, 0, "WITHSCORES"),
    ]


@dataclass(slots=True)
class QueueCounts:
    """The first pipeline's replies for one queue, and what to ask next."""

    queue: QueueRef
    replies: list[Any]
    error: str | None
    heads: list[bytes]
    worker_ids: list[bytes]

    @classmethod
    def of(cls, queue: QueueRef, replies: list[Any]) -> QueueCounts:
        """What the first round has found; a key of the wrong kind makes it the queue's error."""
        broken = next((reply for reply in replies if isinstance(reply, Exception)), None)
        if broken is not None:
            return cls(queue, [], str(broken), [], [])
        heads = [head for head in replies[12:14] if head is not None] + list(replies[14])
        return cls(queue, replies, None, heads, list(replies[11]))

    def detail_commands(self) -> list[tuple[Any, ...]]:
        """The second round."""
        keys = QueueKeys(self.queue)
        return [
            ("HMGET", keys.raw_job(head), "timestamp", "opts", "processedOn", "tb:rdy")
            for head in self.heads
        ] + [("HGETALL", keys.worker(text(worker_id))) for worker_id in self.worker_ids]

    def sample(self, details: list[Any], now_ms: int, foreign_workers: int) -> QueueSample:
        """Both rounds together."""
        if self.error is not None:
            return QueueSample(
                queue=self.queue, at_ms=now_ms, counts=dict.fromkeys(_ALL_STATES, 0), depth=0,
                paused=False, oldest_ready_at_ms=None, stats=QueueStats(), workers=(),
                foreign_workers=foreign_workers, error=self.error,
            )  # fmt: skip
        (meta, wait, paused, prioritized, delayed, due, active, parents, completed, failed, stats,
         *_) = self.replies  # fmt: skip
        counts = {
            JobState.WAITING: wait + paused,
            JobState.PRIORITIZED: prioritized,
            JobState.DELAYED: delayed,
            JobState.ACTIVE: active,
            JobState.WAITING_CHILDREN: parents,
            JobState.COMPLETED: completed,
            JobState.FAILED: failed,
        }
        oldest = [_ready_ms(row) for row in details[: len(self.heads)]]
        workers = [
            _worker_info(text(worker_id), fields)
            for worker_id, fields in zip(self.worker_ids, details[len(self.heads) :], strict=True)
        ]
        return QueueSample(
            queue=self.queue,
            at_ms=now_ms,
            counts=counts,
            depth=wait + paused + prioritized + due,
            paused=meta[0] is not None,
            oldest_ready_at_ms=min((ready for ready in oldest if ready), default=None),
            stats=stats_from_hash(stats),
            workers=tuple(worker for worker in workers if worker is not None),
            foreign_workers=foreign_workers,
            is_shared=meta[1] is not None,
            oldest_failed_at_ms=_score_of_first(self.replies[15]),
        )


def _score_of_first(reply: list[Any]) -> int | None:
    """The score in a reply to ZRANGE 0 0 WITHSCORES, whichever shape the protocol gives it."""
    if not reply:
        return None
    score = reply[1] if len(reply) > 1 else reply[0][1]
    return int(float(score))


_ALL_STATES = tuple(state for state in JobState if state is not JobState.UNKNOWN)


def _ready_ms(row: Any) -> int | None:
    if not isinstance(row, list) or row[0] is None:
        return None
    timestamp, opts, processed, ready = row
    fields = {b"timestamp": timestamp, b"processedOn": processed, b"tb:rdy": ready}
    known = {name: value for name, value in fields.items() if value is not None}
    # Where the mark says nothing, the start that followed it does: it waits since then at least.
    return ready_at_ms(known, decode_options(opts or b"{}")) or number(processed) or None


def _worker_info(worker_id: str, fields: Any) -> WorkerInfo | None:
    if not isinstance(fields, dict) or b"host" not in fields:
        return None
    try:
        running = msgspec.json.decode(
            fields.get(b"running", b"[]"), type=list[tuple[str, str, int]]
        )
        queues = msgspec.json.decode(fields.get(b"queues", b"[]"), type=list[str])
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    return WorkerInfo(
        id=worker_id,
        host=text(fields[b"host"]),
        pid=number(fields.get(b"pid")),
        version=text(fields.get(b"version", b"")),
        started_at_ms=number(fields.get(b"started_at_ms")),
        seen_at_ms=number(fields.get(b"seen_at_ms")),
        queues=tuple(queues),
        concurrency=number(fields.get(b"concurrency")),
        busy=number(fields.get(b"busy")),
        stopping=fields.get(b"stopping") == b"1",
        running=tuple(RunningJob(id=i, name=n, started_at_ms=at) for i, n, at in running),
    )
