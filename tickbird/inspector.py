"""Read-only: which queues there are, what is in them, one job whole.

For people and dashboards, never on a worker's path. Every call is bounded, whatever the
queues hold, and never raises over a key of the wrong kind or a value that is no text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
from redis.exceptions import RedisError, ResponseError

from tickbird.job import Job, JobState, JobSummary, QueueRef
from tickbird.stats import QueueStats
from tickbird.storage.connection import Connection, unavailable
from tickbird.storage.counters import stats_from_hash
from tickbird.storage.keys import QUEUES, QueueKeys, queue_of_client, queue_of_meta
from tickbird.storage.wire import (
    SUMMARY_FIELDS,
    decode_options,
    job_from_hash,
    number,
    raw_bytes,
    ready_at_ms,
    state_suffix,
    summary_from_fields,
    text,
)

WORKER_TTL_S = 30
MAX_PAGE = 200
MAX_LOGS = 1_000
_SCAN_COUNT = 1_000
_SCANS_AT_FIRST = 500
_SCANS_PER_CALL = 5
_CLIENT_LIST_EVERY = 5
_LIST_SCAN = 100_000
_SHOWN_DATA_BYTES = 2_048
OUR_WORKER_NAME = "tb-"
"""What the names of our workers' connections begin with, after `:w:`."""


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
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerInfo:
    """The Redis or Valkey server, as far as queues depend on it."""

    version: str
    product: str
    memory_bytes: int
    max_memory_bytes: int
    memory_policy: str
    aof: bool
    aof_fsync: str
    role: str
    connected_clients: int
    uptime_s: int


@dataclass(slots=True)
class _Discovery:
    """What earlier calls have found, and where the scan stands."""

    known: set[QueueRef] = field(default_factory=set)
    cursor: int = 0
    is_whole: bool = False
    calls: int = 0
    clients: list[QueueRef] = field(default_factory=list)
    foreign: dict[QueueRef, int] = field(default_factory=dict)


class Inspector:
    """Looks at one Redis. `redis` is a URL or an app's Connection, as for Queue.

    Every method raises RedisUnavailable, in one sentence, when the server does not answer.
    """

    def __init__(self, redis: str | Connection | None = None) -> None:
        self._owns_connection = not isinstance(redis, Connection)
        self._connection = redis if isinstance(redis, Connection) else Connection(redis)
        self._discovery = _Discovery()

    async def discover(self) -> list[QueueRef]:
        """All queues seen so far that still exist, sorted.

        Cheap enough for each second: our clients register their queues, workers of any client
        name theirs in the client list, and the keys are scanned for the rest a few thousand
        at a time (the first call goes through up to half a million).
        """
        found = self._discovery
        try:
            registered = await self._connection.reader.smembers(QUEUES)
            found.known.update(QueueRef.from_label(text(member)) for member in registered)
            await self._scan_for_meta()
            if found.calls % _CLIENT_LIST_EVERY == 0:
                await self._read_client_list()
            found.calls += 1
            found.known.update(found.clients)
            candidates = sorted(found.known)
            pipe = self._connection.reader.pipeline(transaction=False)
            for queue in candidates:
                pipe.exists(QueueKeys(queue).of("meta"))
            existing = await pipe.execute() if candidates else []
        except (RedisError, OSError) as error:
            raise unavailable(self._connection.url, error) from error
        found.known = {q for q, exists in zip(candidates, existing, strict=True) if exists}
        return sorted(found.known)

    async def sample(self, queues: Sequence[QueueRef]) -> list[QueueSample]:
        """The figures of these queues now, in two pipelines whatever their number."""
        try:
            seconds, micros = await self._connection.reader.time()
            now_ms = seconds * 1_000 + micros // 1_000
            first = await self._pipeline(
                command for queue in queues for command in _count_commands(queue, now_ms)
            )
            width = len(_count_commands(QueueRef("x"), 0))
            counts = [
                _Counts.of(queue, first[index * width : (index + 1) * width])
                for index, queue in enumerate(queues)
            ]
            second = iter(
                await self._pipeline(
                    command for count in counts for command in count.detail_commands()
                )
            )
        except (RedisError, OSError) as error:
            raise unavailable(self._connection.url, error) from error
        return [
            count.sample(
                [next(second) for _ in count.detail_commands()],
                now_ms,
                self._discovery.foreign.get(count.queue, 0),
            )
            for count in counts
        ]

    async def list_jobs(
        self, queue: QueueRef, state: JobState, *, offset: int = 0, limit: int = 50
    ) -> list[JobSummary]:
        """A page of the jobs in a state: next to run first, finished ones newest first.

        At most 200 jobs a page. Payloads over 2 kB are not read; only their size is.
        """
        limit = max(1, min(limit, MAX_PAGE))
        offset = max(0, offset)
        try:
            found = await self._page(queue, state, offset, limit)
            keys = QueueKeys(queue)
            jobs = [_job_key(keys, job_id) for job_id, _ in found]
            fields = [name for name in SUMMARY_FIELDS if name != "data"]
            heads = await self._pipeline(
                [("HMGET", job, *fields) for job in jobs]
                + [("HSTRLEN", job, "data") for job in jobs]
            )
            rows, sizes = heads[: len(jobs)], heads[len(jobs) :]
            small = [
                index
                for index, size in enumerate(sizes)
                if isinstance(size, int) and 0 < size <= _SHOWN_DATA_BYTES
            ]
            payloads = dict(
                zip(
                    small,
                    await self._pipeline(("HGET", jobs[index], "data") for index in small),
                    strict=True,
                )
            )
        except (RedisError, OSError) as error:
            raise unavailable(self._connection.url, error) from error
        summaries = []
        for index, (job_id, due_at_ms) in enumerate(found):
            row = rows[index]
            values = list(row) if isinstance(row, list) else [None] * len(fields)
            values.insert(SUMMARY_FIELDS.index("data"), payloads.get(index))
            summary = summary_from_fields(queue, text(job_id), state, values, due_at_ms)
            size_bytes = sizes[index] if isinstance(sizes[index], int) else 0
            summaries.append(replace(summary, data_bytes=size_bytes))
        return summaries

    async def get_job(self, queue: QueueRef, job_id: str) -> Job | None:
        """A job whole, with its newest 1,000 log lines; None when there is no such job."""
        keys = QueueKeys(queue)
        job_key = _job_key(keys, raw_bytes(job_id))
        try:
            fields, logs, delayed_score = await self._pipeline(
                [
                    ("HGETALL", job_key),
                    ("LRANGE", job_key + b":logs", -MAX_LOGS, -1),
                    ("ZSCORE", keys.of("delayed"), raw_bytes(job_id)),
                ]
            )
            if not isinstance(fields, dict) or b"name" not in fields:
                return None
            state = await self.get_state(queue, job_id)
        except (RedisError, OSError) as error:
            raise unavailable(self._connection.url, error) from error
        return job_from_hash(
            queue,
            job_id,
            state,
            fields,
            logs=tuple(text(line) for line in logs) if isinstance(logs, list) else (),
            due_at_ms=int(delayed_score // 4096) if isinstance(delayed_score, float) else None,
        )

    async def get_state(self, queue: QueueRef, job_id: str) -> JobState:
        """Where a job is; `unknown` when nowhere.

        In a waiting list only the next 100,000 are looked through; a job that exists and is
        nowhere else counts as waiting behind them.
        """
        keys, raw = QueueKeys(queue), raw_bytes(job_id)
        sets = (
            JobState.COMPLETED,
            JobState.FAILED,
            JobState.DELAYED,
            JobState.PRIORITIZED,
            JobState.WAITING_CHILDREN,
        )
        lists = ("active", "wait", "paused")
        try:
            replies = await self._pipeline(
                [("ZSCORE", keys.of(state_suffix(state)), raw) for state in sets]
                + [("LPOS", keys.of(s), raw, "RANK", -1, "MAXLEN", _LIST_SCAN) for s in lists]
                + [("LLEN", keys.of("wait")), ("EXISTS", _job_key(keys, raw))]
            )
        except (RedisError, OSError) as error:
            raise unavailable(self._connection.url, error) from error
        for state, score in zip(sets, replies, strict=False):
            if isinstance(score, float):
                return state
        active, wait, paused, waiting, exists = replies[len(sets) :]
        if isinstance(active, int):
            return JobState.ACTIVE
        if isinstance(wait, int) or isinstance(paused, int):
            return JobState.WAITING
        beyond = isinstance(waiting, int) and waiting > _LIST_SCAN and exists == 1
        return JobState.WAITING if beyond else JobState.UNKNOWN

    async def server(self) -> ServerInfo:
        """Version, memory, persistence and role of the server."""
        try:
            info = await self._connection.reader.info()
        except (RedisError, OSError) as error:
            raise unavailable(self._connection.url, error) from error
        return server_info(info)

    async def aclose(self) -> None:
        """Close the connections, unless they are an app's."""
        if self._owns_connection:
            await self._connection.aclose()

    async def _pipeline(self, commands: Any) -> list[Any]:
        """Replies in order; an error reply stands as an exception in its place."""
        pipe = self._connection.reader.pipeline(transaction=False)
        for command in commands:
            pipe.execute_command(*command)
        if not len(pipe):
            return []
        replies: list[Any] = await pipe.execute(raise_on_error=False)
        return replies

    async def _scan_for_meta(self) -> None:
        found = self._discovery
        for _ in range(_SCANS_PER_CALL if found.is_whole else _SCANS_AT_FIRST):
            found.cursor, keys = await self._connection.reader.scan(
                found.cursor, match="*:meta", count=_SCAN_COUNT, _type="hash"
            )
            found.known.update(q for key in keys if (q := queue_of_meta(text(key))) is not None)
            if found.cursor == 0:
                break
        found.is_whole = True

    async def _read_client_list(self) -> None:
        """Workers of any client; some hosted servers forbid the command, then nobody is shown."""
        found = self._discovery
        found.clients, found.foreign = [], {}
        try:
            clients = await self._connection.reader.client_list()
        except ResponseError:
            return
        for client in clients:
            name = client.get("name", "")
            queue = queue_of_client(name)
            if queue is None:
                continue
            found.clients.append(queue)
            if not name.partition(":w:")[2].startswith(OUR_WORKER_NAME):
                found.foreign[queue] = found.foreign.get(queue, 0) + 1

    async def _page(
        self, queue: QueueRef, state: JobState, offset: int, limit: int
    ) -> list[tuple[bytes, int | None]]:
        keys = QueueKeys(queue)
        key = keys.of(state_suffix(state))
        if state is JobState.WAITING:
            return await self._waiting_page(keys, offset, limit)
        if state is JobState.ACTIVE:
            (ids,) = await self._pipeline([("LRANGE", key, -offset - limit, -offset - 1)])
            return [(job_id, None) for job_id in reversed(_listed(ids))]
        if state in (JobState.COMPLETED, JobState.FAILED):
            (ids,) = await self._pipeline([("ZREVRANGE", key, offset, offset + limit - 1)])
            return [(job_id, None) for job_id in _listed(ids)]
        reader = self._connection.reader
        try:
            scored = await reader.zrange(key, offset, offset + limit - 1, withscores=True)
        except ResponseError:
            return []
        is_delayed = state is JobState.DELAYED
        return [(job_id, int(score // 4096) if is_delayed else None) for job_id, score in scored]

    async def _waiting_page(
        self, keys: QueueKeys, offset: int, limit: int
    ) -> list[tuple[bytes, int | None]]:
        """From the end that is served first; then what old clients parked while paused."""
        (in_wait,) = await self._pipeline([("LLEN", keys.of("wait"))])
        in_wait = in_wait if isinstance(in_wait, int) else 0
        in_paused = max(0, offset - in_wait)
        from_wait, from_paused = await self._pipeline(
            [
                ("LRANGE", keys.of("wait"), -offset - limit, -offset - 1),
                ("LRANGE", keys.of("paused"), -in_paused - limit, -in_paused - 1),
            ]
        )
        ids = list(reversed(_listed(from_wait))) + list(reversed(_listed(from_paused)))
        return [(job_id, None) for job_id in ids[:limit] if not job_id.startswith(b"0:")]


def server_info(info: Mapping[str, Any]) -> ServerInfo:
    """The reply of INFO as ServerInfo."""
    is_valkey = "valkey_version" in info
    return ServerInfo(
        version=str(info.get("valkey_version" if is_valkey else "redis_version", "")),
        product="valkey" if is_valkey else "redis",
        memory_bytes=int(info.get("used_memory", 0)),
        max_memory_bytes=int(info.get("maxmemory", 0)),
        memory_policy=str(info.get("maxmemory_policy", "")),
        aof=info.get("aof_enabled", 0) == 1,
        aof_fsync="",
        role=str(info.get("role", "")),
        connected_clients=int(info.get("connected_clients", 0)),
        uptime_s=int(info.get("uptime_in_seconds", 0)),
    )


def _job_key(keys: QueueKeys, job_id: bytes) -> bytes:
    return keys.prefix.encode() + job_id


def _listed(reply: Any) -> list[bytes]:
    return reply if isinstance(reply, list) else []


def _count_commands(queue: QueueRef, now_ms: int) -> list[tuple[Any, ...]]:
    keys = QueueKeys(queue)
    return [
        ("HMGET", keys.of("meta"), "paused"),
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
    ]


@dataclass(slots=True)
class _Counts:
    """The first pipeline's replies for one queue, and what to ask next."""

    queue: QueueRef
    replies: list[Any]
    error: str | None
    heads: list[bytes]
    worker_ids: list[bytes]

    @classmethod
    def of(cls, queue: QueueRef, replies: list[Any]) -> _Counts:
        broken = next((reply for reply in replies if isinstance(reply, Exception)), None)
        if broken is not None:
            return cls(queue, [], str(broken), [], [])
        heads = [head for head in replies[12:14] if head is not None] + list(replies[14])
        return cls(queue, replies, None, heads, list(replies[11]))

    def detail_commands(self) -> list[tuple[Any, ...]]:
        keys = QueueKeys(self.queue)
        return [
            ("HMGET", _job_key(keys, head), "timestamp", "opts", "processedOn", "tb:rdy")
            for head in self.heads
        ] + [("HGETALL", keys.worker(text(worker_id))) for worker_id in self.worker_ids]

    def sample(self, details: list[Any], now_ms: int, foreign_workers: int) -> QueueSample:
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
        )


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
