"""Read-only: which queues there are, what is in them, one job whole.

For people and dashboards, never on a worker's path. Every call is bounded, whatever the
queues hold, and never raises over a key of the wrong kind or a value that is no text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from redis.exceptions import RedisError, ResponseError

from tickbird.errors import InvalidOption
from tickbird.job import Job, JobState, JobSummary, QueueRef
from tickbird.sampling import (
    WORKER_TTL_S,
    QueueCounts,
    QueueSample,
    RunningJob,
    WorkerInfo,
    count_commands,
)
from tickbird.storage.connection import Connection, unavailable
from tickbird.storage.keys import QUEUES, QueueKeys, queue_of_client, queue_of_meta
from tickbird.storage.wire import (
    SUMMARY_FIELDS,
    job_from_hash,
    number,
    raw_bytes,
    state_suffix,
    summary_from_fields,
    text,
)

__all__ = [
    "WORKER_TTL_S", "ForeignWorker", "Inspector", "LogPage", "MinuteCounts", "QueueSample",
    "QueueWorkers", "RunningJob", "ServerInfo", "WorkerInfo", "server_info",
]  # fmt: skip

MAX_PAGE = 200
MAX_IDS = 10_000
MAX_LOGS = 1_000
MAX_MINUTES = 20_160
_SCAN_COUNT = 1_000
_SCANS_AT_FIRST = 500
_SCANS_PER_CALL = 5
_CLIENT_LIST_EVERY = 5
_LIST_SCAN = 100_000
_SHOWN_DATA_BYTES = 2_048
_MAX_PRIORITIES = 1_000
OUR_WORKER_NAME = "tb-"
"""What the names of our workers' connections begin with, after `:w:`."""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignWorker:
    """A worker process of another client, as its connection shows it."""

    name: str
    """What it calls itself; most have no name."""
    address: str
    connected_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueWorkers:
    """Who works on a queue: ours by their heartbeat, others by their connections."""

    ours: tuple[WorkerInfo, ...]
    foreign: tuple[ForeignWorker, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LogPage:
    """Some of a job's log lines, and how many there are."""

    lines: tuple[str, ...]
    total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MinuteCounts:
    """Jobs that finished in a state, by minute, where a worker keeps BullMQ's metrics.

    `counts` begins with the minute that runs now and goes back; `total` is all-time. Nothing
    is counted while no worker keeps them: then both are 0 and empty.
    """

    state: JobState
    now_ms: int
    total: int
    counts: tuple[int, ...]


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
                command for queue in queues for command in count_commands(queue, now_ms)
            )
            width = len(count_commands(QueueRef("x"), 0))
            counts = [
                QueueCounts.of(queue, first[index * width : (index + 1) * width])
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
        self,
        queue: QueueRef,
        state: JobState,
        *,
        offset: int = 0,
        limit: int = 50,
        newest_first: bool | None = None,
    ) -> list[JobSummary]:
        """A page of the jobs in a state: next to run first, finished ones newest first.

        `newest_first` says which end comes first whatever the state: what was added, is due, or
        has finished last. At most 200 jobs a page. Payloads over 2 kB are not read; only their
        size is.
        """
        limit = max(1, min(limit, MAX_PAGE))
        offset = max(0, offset)
        try:
            found = await self._page(queue, state, offset, limit, newest_first)
            keys = QueueKeys(queue)
            jobs = [keys.raw_job(job_id) for job_id, _ in found]
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

    async def list_ids(
        self,
        queue: QueueRef,
        state: JobState,
        *,
        offset: int = 0,
        limit: int = 1_000,
        newest_first: bool | None = None,
    ) -> list[str]:
        """The ids of jobs in a state, in the order of list_jobs; at most 10,000 a page."""
        limit = max(1, min(limit, MAX_IDS))
        try:
            found = await self._page(queue, state, max(0, offset), limit, newest_first)
        except (RedisError, OSError) as error:
            raise unavailable(self._connection.url, error) from error
        return [text(job_id) for job_id, _ in found]

    async def list_logs(
        self,
        queue: QueueRef,
        job_id: str,
        *,
        offset: int = 0,
        limit: int = 100,
        newest_first: bool = False,
    ) -> LogPage:
        """A page of a job's log lines, the oldest first; at most 1,000."""
        key = QueueKeys(queue).raw_job(raw_bytes(job_id)) + b":logs"
        offset, limit = max(0, offset), max(1, min(limit, MAX_LOGS))
        first, last = offset, offset + limit - 1
        if newest_first:
            first, last = -last - 1, -first - 1
        try:
            lines, total = await self._pipeline([("LRANGE", key, first, last), ("LLEN", key)])
        except (RedisError, OSError) as error:
            raise unavailable(self._connection.url, error) from error
        shown = [text(line) for line in _listed(lines)]
        return LogPage(
            lines=tuple(reversed(shown) if newest_first else shown),
            total=total if isinstance(total, int) else 0,
        )

    async def count_priority(self, queue: QueueRef, priorities: Sequence[int]) -> dict[int, int]:
        """How many jobs wait, by priority; 0 are those without one. At most 1,000 priorities."""
        keys = QueueKeys(queue)
        wanted = list(dict.fromkeys(priorities))[:_MAX_PRIORITIES]
        try:
            waiting, parked, *counts = await self._pipeline(
                [("LLEN", keys.of("wait")), ("LLEN", keys.of("paused"))]
                + [("ZCOUNT", keys.of("prioritized"), p << 32, ((p + 1) << 32) - 1) for p in wanted]
            )
        except (RedisError, OSError) as error:
            raise unavailable(self._connection.url, error) from error
        found = dict(zip(wanted, map(_counted, counts), strict=True))
        if 0 in found:
            found[0] += _counted(waiting) + _counted(parked)
        return found

    async def list_workers(self, queue: QueueRef) -> QueueWorkers:
        """The workers of a queue, of any client.

        Others are seen by the names of their connections, one per process; a server that forbids
        CLIENT LIST shows none, and a worker whose name the server refused is never seen.
        """
        (sample,) = await self.sample([queue])
        try:
            clients = await self._connection.reader.client_list()
        except ResponseError:
            clients = []
        except (RedisError, OSError) as error:
            raise unavailable(self._connection.url, error) from error
        foreign = [
            ForeignWorker(
                name=client["name"].partition(":w:")[2],
                address=str(client.get("addr", "")),
                connected_s=int(client.get("age", 0)),
            )
            for client in clients
            if queue_of_client(client.get("name", "")) == queue
        ]
        return QueueWorkers(
            ours=sample.workers,
            foreign=tuple(w for w in foreign if not w.name.startswith(OUR_WORKER_NAME)),
        )

    async def count_minutes(
        self, queue: QueueRef, state: JobState, *, minutes: int = 60
    ) -> MinuteCounts:
        """How many jobs completed or failed in each of the last minutes; at most two weeks."""
        if state not in (JobState.COMPLETED, JobState.FAILED):
            raise InvalidOption(f"only completed and failed jobs are counted, not {state} ones")
        minutes = max(1, min(minutes, MAX_MINUTES))
        key = QueueKeys(queue).of(f"metrics:{state_suffix(state)}")
        try:
            time, counters, listed = await self._pipeline(
                [
                    ("TIME",),
                    ("HMGET", key, "count", "prevTS", "prevCount"),
                    ("LRANGE", f"{key}:data", 0, minutes - 1),
                ]
            )
        except (RedisError, OSError) as error:
            raise unavailable(self._connection.url, error) from error
        now_ms = int(time[0]) * 1_000 + int(time[1]) // 1_000
        total, counts = minute_counts(counters, _listed(listed), now_ms)
        return MinuteCounts(state=state, now_ms=now_ms, total=total, counts=counts[:minutes])

    async def get_job(self, queue: QueueRef, job_id: str) -> Job | None:
        """A job whole, with its newest 1,000 log lines; None when there is no such job."""
        keys = QueueKeys(queue)
        job_key = keys.raw_job(raw_bytes(job_id))
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
                + [("LLEN", keys.of("wait")), ("EXISTS", keys.raw_job(raw))]
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
        self,
        queue: QueueRef,
        state: JobState,
        offset: int,
        limit: int,
        newest_first: bool | None = None,  # noqa: FBT001 - as the methods above have it
    ) -> list[tuple[bytes, int | None]]:
        """Ids with their due times where they have one."""
        keys = QueueKeys(queue)
        if newest_first is None:
            newest_first = state in (JobState.COMPLETED, JobState.FAILED)
        if state is JobState.WAITING:
            suffixes = ("paused", "wait") if newest_first else ("wait", "paused")
            return await self._list_page(keys, suffixes, offset, limit, newest_first)
        if state is JobState.ACTIVE:
            return await self._list_page(keys, ("active",), offset, limit, newest_first)
        try:
            scored = await self._connection.reader.zrange(
                keys.of(state_suffix(state)),
                offset,
                offset + limit - 1,
                desc=newest_first,
                withscores=True,
            )
        except ResponseError:
            return []
        is_delayed = state is JobState.DELAYED
        return [(job_id, int(score // 4096) if is_delayed else None) for job_id, score in scored]

    async def _list_page(
        self,
        keys: QueueKeys,
        suffixes: Sequence[str],
        offset: int,
        limit: int,
        newest_first: bool,  # noqa: FBT001 - as the methods above have it
    ) -> list[tuple[bytes, int | None]]:
        """One list after the other; the end that is served first is the right one.

        `paused` is what old clients parked: it is served after what waits.
        """
        lengths = await self._pipeline([("LLEN", keys.of(suffix)) for suffix in suffixes])
        commands = []
        for suffix, length in zip(suffixes, lengths, strict=True):
            size = _counted(length)
            first, last = offset, offset + limit - 1
            if not newest_first:
                first, last = -last - 1, -first - 1
            if offset < size:
                commands.append(("LRANGE", keys.of(suffix), first, last))
            offset = max(0, offset - size)
        ids: list[bytes] = []
        for reply in await self._pipeline(commands):
            found = _listed(reply)
            ids += found if newest_first else reversed(found)
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


def _listed(reply: Any) -> list[bytes]:
    return reply if isinstance(reply, list) else []


def _counted(reply: Any) -> int:
    return reply if isinstance(reply, int) else 0


def minute_counts(
    counters: Any, listed: Sequence[bytes], now_ms: int
) -> tuple[int, tuple[int, ...]]:
    """The all-time total and the counts by minute, newest first, as of now.

    The list ends with the minute before the one counted last; that one has what is over the
    count at its begin, and in the minutes since nothing finished.
    """
    if not isinstance(counters, list) or counters[1] is None:
        return 0, ()
    total, counted_ms, before = (number(counter) for counter in counters)
    idle = max(0, now_ms // 60_000 - counted_ms // 60_000)
    counts = (0,) * min(idle, MAX_MINUTES)
    return total, (*counts, total - before, *(number(count) for count in listed))
