"""The tasks of both sides, in Python, and workers for them: the driver has the same in Node."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import redis.asyncio as aioredis

from tests.conftest import running
from tickbird import App, QueueRef, Worker
from tickbird.inspector import QueueSample

QUEUE = "mail"


def register(app: App, redis: aioredis.Redis, *, sticks: bool = False) -> None:
    """Give the app its tasks; `count` keeps its ledger under the app's prefix.

    `stick` never ends in a process that is going to be killed, and at once in any other.
    """
    failed_once: set[Any] = set()

    @app.task(queue=QUEUE)
    async def echo(**data: Any) -> Any:
        return data

    @app.task(queue=QUEUE)
    def double(n: int) -> int:
        return n * 2

    @app.task(queue=QUEUE)
    async def fail(reason: str) -> None:
        raise ValueError(reason)

    @app.task(queue=QUEUE)
    async def stick() -> str:
        if sticks:
            await asyncio.Event().wait()
        return "free"

    @app.task(queue=QUEUE)
    async def count(n: int) -> None:
        async with redis.pipeline() as both:
            both.hincrby(f"{app.prefix}-ledger", str(n), 1)
            both.hincrby(f"{app.prefix}-runners", "tickbird", 1)
            await both.execute()

    @app.task(queue=QUEUE)
    async def flaky(who: str) -> str:
        if who in failed_once:
            return "well"
        failed_once.add(who)
        raise RuntimeError("not yet")


@asynccontextmanager
async def at_work(app: App, **options: Any) -> AsyncIterator[Worker]:
    """A worker of ours on the queue for the length of the block, in this process."""
    async with running(Worker(app, queues=(QUEUE,), **options)) as worker:
        yield worker
        worker.stop()
        # An idle worker would notice only when its wait for a wake-up is over: up to a second.
        await app.connection.reader.zadd(f"{app.prefix}:{QUEUE}:marker", {"0": 0})


async def ledger(redis: aioredis.Redis, app: App, what: str = "ledger") -> dict[str, str]:
    """How often each `count` job was run (or, for `runners`, how many each client ran)."""
    return cast("dict[str, str]", await cast("Any", redis.hgetall(f"{app.prefix}-{what}")))


async def sample(app: App) -> QueueSample:
    """The queue's figures as we see them now, workers of other clients included."""
    inspector = app.inspector
    await inspector.discover()
    (figures,) = await inspector.sample([QueueRef(QUEUE, app.prefix)])
    return figures
