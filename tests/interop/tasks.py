"""The tasks of both sides, in Python, and workers for them: the driver has the same in Node."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import redis.asyncio as aioredis

from tests.conftest import running
from tickbird import (
    App,
    Context,
    DoNotRetry,
    Postpone,
    PutBack,
    QueueRef,
    RateLimited,
    WaitForChildren,
    Worker,
)
from tickbird.inspector import QueueSample

QUEUE = "mail"


def register(app: App, redis: aioredis.Redis, *, sticks: bool = False) -> None:
    """Give the app its tasks; `count` keeps its ledger under the app's prefix.

    `stick` never ends in a process that is going to be killed, and at once in any other.
    """

    @app.task(queue=QUEUE)
    async def echo(**data: Any) -> Any:
        return data

    @app.task(queue=QUEUE)
    def double(n: int) -> int:
        return n * 2

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
    async def hold(**_: Any) -> str:
        """Until somebody pushes to the gate."""
        await redis.blpop([f"{app.prefix}-gate"], 20)
        return "held"

    _register_failures(app)
    _register_parents(app)
    _register_steering(app)


def _register_failures(app: App) -> None:
    failed_once: set[Any] = set()

    @app.task(queue=QUEUE)
    async def fail(reason: str) -> None:
        raise ValueError(reason)

    @app.task(queue=QUEUE)
    async def flaky(who: str) -> str:
        if who in failed_once:
            return "well"
        failed_once.add(who)
        raise RuntimeError("not yet")

    @app.task(name="giveUp", queue=QUEUE)
    async def give_up(reason: str) -> None:
        raise DoNotRetry(reason)


def _register_parents(app: App) -> None:
    @app.task(name="sum", queue=QUEUE)
    async def add_up(ctx: Context, n: int) -> int:
        return n + int(sum((await ctx.children_results()).values()))

    @app.task(queue=QUEUE)
    async def look(ctx: Context) -> dict[str, Any]:
        children = await app.queue(ctx.queue.name).children(ctx.job_id)
        return {"values": await ctx.children_results(), "ignored": dict(children.ignored)}

    @app.task(queue=QUEUE)
    async def spawn(ctx: Context, queue: str, n: int) -> int:
        done = await ctx.children_results()
        if done:
            return int(sum(done.values()))
        await ctx.add_child("double", {"n": n}, queue=queue, job_id=f"{ctx.job_id}-child")
        raise WaitForChildren


def _register_steering(app: App) -> None:
    steered: set[str] = set()

    def is_first(ctx: Context) -> bool:
        first = ctx.job_id not in steered
        steered.add(ctx.job_id)
        return first

    @app.task(queue=QUEUE)
    async def tell(ctx: Context, to: str) -> None:
        await ctx.progress({"done": 1, "of": 2})
        await ctx.log("first line", "second line")
        await ctx.update_data({"to": to, "told": True})

    @app.task(queue=QUEUE)
    async def later(ctx: Context, ms: int) -> str:
        if is_first(ctx):
            raise Postpone(ms / 1_000)
        return "ran again"

    @app.task(name="putBack", queue=QUEUE)
    async def put_back(ctx: Context) -> str:
        if is_first(ctx):
            raise PutBack
        return "ran again"

    @app.task(queue=QUEUE)
    async def limited(ctx: Context, ms: int) -> str:
        if is_first(ctx):
            raise RateLimited(ms / 1_000)
        return "ran again"


@asynccontextmanager
async def at_work(
    app: App, *, queues: tuple[str, ...] = (QUEUE,), **options: Any
) -> AsyncIterator[Worker]:
    """A worker of ours on the queue for the length of the block, in this process."""
    async with running(Worker(app, queues=queues, **options)) as worker:
        yield worker


async def ledger(redis: aioredis.Redis, app: App, what: str = "ledger") -> dict[str, str]:
    """How often each `count` job was run (or, for `runners`, how many each client ran)."""
    return cast("dict[str, str]", await cast("Any", redis.hgetall(f"{app.prefix}-{what}")))


async def sample(app: App) -> QueueSample:
    """The queue's figures as we see them now, workers of other clients included."""
    inspector = app.inspector
    await inspector.discover()
    (figures,) = await inspector.sample([QueueRef(QUEUE, app.prefix)])
    return figures
