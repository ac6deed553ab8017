"""Replies that never arrive: no job twice, none lost, counters equal to the truth."""

from __future__ import annotations

import asyncio

import pytest

from tests.conftest import eventually, running
from tests.faults.proxy import lossy_proxy
from tickbird import App, JobState, Outcome, OutcomeUnknown, Queue, Worker

pytestmark = pytest.mark.faults


async def test_a_lost_reply_adds_no_second_job(redis_url: str, prefix: str) -> None:
    async with lossy_proxy(redis_url, seed=11) as proxy:
        queue = Queue("mail", redis=proxy.url, prefix=prefix, deadline_s=30)
        await queue.add("x")
        proxy.loss = 0.1

        handles = []
        for batch in range(20):
            handles += await asyncio.gather(*(queue.add("x", batch) for _ in range(10)))

        proxy.loss = 0.0
        (sample,) = await queue._inspector.sample([queue.ref])
        assert proxy.dropped >= 5
        assert sample.counts[JobState.WAITING] == 201
        assert len({handle.id for handle in handles}) == 200
        assert sample.stats.added == 201
        await queue.aclose()


async def test_an_unknown_outcome_can_be_asked_again(redis_url: str, prefix: str) -> None:
    async with lossy_proxy(redis_url, seed=3) as proxy:
        queue = Queue("mail", redis=proxy.url, prefix=prefix, deadline_s=0.3)
        await queue.add("x")
        proxy.loss = 1.0

        with pytest.raises(OutcomeUnknown, match="may not have taken effect") as unknown:
            await queue.add("x")
        proxy.loss = 0.0
        await unknown.value.retry()

        (sample,) = await queue._inspector.sample([queue.ref])
        assert sample.counts[JobState.WAITING] == 2
        await queue.aclose()


async def test_a_worker_behind_a_lossy_line_runs_each_job_once(redis_url: str, prefix: str) -> None:
    async with lossy_proxy(redis_url, seed=5) as proxy:
        app = App("lossy", redis=proxy.url, prefix=prefix)
        runs: list[int] = []

        @app.task(queue="mail", retry=1)
        async def work(n: int) -> None:
            runs.append(n)

        direct = Queue("mail", redis=redis_url, prefix=prefix)
        await direct.add_many([("work", {"n": n}) for n in range(2_000)])
        async with running(Worker(app, queues=["mail"], concurrency=20)):
            proxy.loss = 0.1

            async def all_done() -> bool:
                (sample,) = await direct._inspector.sample([direct.ref])
                return sample.depth == 0 and sample.counts[JobState.ACTIVE] == 0

            await eventually(all_done, 60)
            proxy.loss = 0.0

        (sample,) = await direct._inspector.sample([direct.ref])
        assert proxy.dropped > 5
        assert sorted(runs) == list(range(2_000))
        assert sample.stats.attempts(Outcome.COMPLETED) == sample.stats.attempts() == 2_000
        assert sample.stats.stalled == 0
        await direct.aclose()
        await app.aclose()


async def test_a_silent_server_ends_handlers_before_their_lock(redis_url: str, prefix: str) -> None:
    async with lossy_proxy(redis_url, seed=5) as proxy:
        app = App("silent", redis=proxy.url, prefix=prefix)
        started, cancelled = asyncio.Event(), asyncio.Event()

        @app.task(queue="mail")
        async def work() -> None:
            started.set()
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.set()

        direct = Queue("mail", redis=redis_url, prefix=prefix)
        await direct.add("work", {})
        async with running(Worker(app, queues=["mail"], lock_ms=1_000, grace="0s")):
            await asyncio.wait_for(started.wait(), 10)
            proxy.fall_silent()
            await asyncio.wait_for(cancelled.wait(), 10)
            lock_left_ms = await direct._connection.reader.pttl(f"{prefix}:mail:1:lock")
            proxy.speak()

        assert lock_left_ms > 0
        await direct.aclose()
        await app.aclose()
