"""Builders for the dashboard's tests: hand-made samples, a running app, foreign data."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, cast

import httpx
import redis.asyncio as aioredis

from dashboard.app import create_app
from dashboard.pages.rendering import Services
from dashboard.settings import Settings
from tickbird import JobState, Outcome, Queue, QueueRef, QueueSample, RedisUnavailable, ServerInfo
from tickbird.stats import BOUNDS_MS, Histogram, QueueStats, TaskStats, bucket_of

NOW_MS = 1_700_000_000_000
STATES: list[JobState] = [state for state in JobState if state is not JobState.UNKNOWN]
SAME_ORIGIN = {"Sec-Fetch-Site": "same-origin"}
HTMX = {"HX-Request": "true"}

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "{{7*7}}</pre><svg onload=alert(1)>",
    "\u202etxt.exe\u0000\u001b[31m\u2028",
    "Z\u0310\u0351a\u0330" * 200,
    "x" * 10_000,
    '<a hx-get="/" data-hx-post="/queues/mail/pause" hx-on:click="x">',
)


class MovedClock:
    """A clock that stands still until moved."""

    def __init__(self) -> None:
        self.at_s = 1_000.0

    def now_ms(self) -> int:
        return NOW_MS + round((self.at_s - 1_000) * 1_000)

    def monotonic_s(self) -> float:
        return self.at_s


def histogram(*durations_ms: float) -> Histogram:
    counts = [0] * (len(BOUNDS_MS) + 1)
    for ms in durations_ms:
        counts[bucket_of(ms)] += 1
    return Histogram(tuple(counts), round(sum(durations_ms)))


def stats(*, added: int = 0, completed: int = 0, retried: int = 0, failed: int = 0) -> QueueStats:
    attempts = {
        Outcome.COMPLETED: completed,
        Outcome.RETRIED: retried,
        Outcome.FAILED: failed,
    }
    run = {Outcome.COMPLETED: histogram(*[100] * completed)}
    return QueueStats(tasks={"send": TaskStats(added=added, attempts=attempts, run=run)})


def sample(name: str = "mail", *, at_s: float = 0.0, **changes: Any) -> QueueSample:
    counts: dict[JobState, int] = dict.fromkeys(STATES, 0) | dict(changes.pop("counts", {}))
    built = QueueSample(
        queue=QueueRef(name),
        at_ms=NOW_MS + round(at_s * 1_000),
        counts=counts,
        depth=counts[JobState.WAITING] + counts[JobState.PRIORITIZED],
        paused=False,
        oldest_ready_at_ms=None,
        stats=QueueStats(),
        workers=(),
        foreign_workers=0,
    )
    return replace(built, **changes)


SERVER = ServerInfo(
    version="7.2.4",
    product="redis",
    memory_bytes=1_000_000,
    max_memory_bytes=0,
    memory_policy="noeviction",
    aof=True,
    aof_fsync="everysec",
    role="master",
    connected_clients=1,
    uptime_s=1,
)


@dataclass
class FakeSource:
    """What a sampler reads, as the test sets it; `down` is the sentence of a dead Redis."""

    samples: list[QueueSample] = field(default_factory=list)
    down: str | None = None
    calls: int = 0

    async def discover(self) -> list[QueueRef]:
        self.calls += 1
        if self.down:
            raise RedisUnavailable(self.down)
        return [sample.queue for sample in self.samples]

    async def sample(self, _queues: object) -> list[QueueSample]:
        return self.samples

    async def server(self) -> ServerInfo:
        return SERVER


class Dashboard:
    """A running dashboard: a browser without JavaScript (`client`) and a look inside."""

    def __init__(self, client: httpx.AsyncClient, services: Services) -> None:
        self.client = client
        self.services = services

    async def page(
        self, path: str, *, status: int = 200, headers: Mapping[str, str] | None = None
    ) -> str:
        await self.services.sampler.run_once()
        answer = await self.client.get(path, headers={"Accept": "text/html", **(headers or {})})
        assert answer.status_code == status, answer.text[:2_000]
        return answer.text

    async def post(self, path: str, *, data: Any = None, **headers: str) -> httpx.Response:
        return await self.client.post(path, data=data, headers={**SAME_ORIGIN, **headers})


@asynccontextmanager
async def running_dashboard(redis_url: str, **changes: Any) -> AsyncIterator[Dashboard]:
    """A dashboard on a real Redis that samples only when asked."""
    options = {"redis_url": redis_url, "sample_interval_s": 3_600.0, **changes}
    app = create_app(Settings(**options))
    transport = httpx.ASGITransport(app=cast("Any", app), raise_app_exceptions=False)
    async with (
        app.lifespan(),
        httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as client,
    ):
        yield Dashboard(client, app.state.services)


async def fail_jobs(queue: Queue, redis_url: str, count: int = 1, **fields: Any) -> list[str]:
    """Jobs in `failed`, written as any BullMQ client leaves them."""
    ids = [f"dead-{number}" for number in range(count)]
    for number, job_id in enumerate(ids):
        await put_job(
            redis_url,
            queue.ref,
            job_id,
            {"failedReason": "boom", "atm": "1", "finishedOn": str(NOW_MS + number), **fields},
            state="failed",
            score=NOW_MS + number,
        )
    return ids


async def put_job(
    redis_url: str,
    queue: QueueRef,
    job_id: str | bytes,
    fields: Mapping[str, Any] | None = None,
    *,
    state: str = "wait",
    score: float = NOW_MS,
) -> None:
    """A job hash and its place, byte for byte, as a foreign client may have written them."""
    raw_id = job_id.encode() if isinstance(job_id, str) else job_id
    base = f"{queue.prefix}:{queue.name}:".encode(errors="surrogateescape")
    client = aioredis.Redis.from_url(redis_url)
    hash_fields: dict[Any, Any] = {
        "name": "send",
        "data": json.dumps({"to": "a@example.net"}),
        "opts": json.dumps({"attempts": 1}),
        "timestamp": str(NOW_MS),
        "processedOn": str(NOW_MS),
        "delay": "0",
        "priority": "0",
        **(fields or {}),
    }
    async with client:
        await client.hset(base + b"meta", mapping={"opts.maxLenEvents": "10000"})
        await client.hset(base + raw_id, mapping=hash_fields)
        if state == "wait":
            await client.lpush(base + b"wait", raw_id)
        else:
            await client.zadd(base + state.encode(), {raw_id: score})
