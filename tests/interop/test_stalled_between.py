"""Jobs of a dead worker between the languages: who judges it, who runs the job next."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import redis.asyncio as aioredis

from tests.conftest import eventually
from tests.factories import HandWorker
from tests.interop.bullmq import NodeProcess, NodeQueue
from tests.interop.tasks import at_work
from tickbird import App, JobState, Queue
from tickbird.attempt import STALLED_TOO_OFTEN
from tickbird.maintenance import Maintenance

pytestmark = pytest.mark.interop

LOCK_MS = 300
CHECK_MS = 100
AS_NODE = {"lockDuration": LOCK_MS, "stalledInterval": CHECK_MS}
SIDES = ["node", "us"]


@asynccontextmanager
async def dying_node_worker(
    node: NodeQueue, node_modules: Path, redis_url: str
) -> AsyncIterator[NodeProcess]:
    """A Node process whose worker takes what there is and is killed at the block's end."""
    victim = NodeProcess(node.process.package, node_modules, redis_url, "sticks")
    await NodeQueue(victim, *node.where).work(**AS_NODE, concurrency=5)
    yield victim
    victim.kill()


async def die_with_a_job(
    victim: str, node: NodeQueue, queue: Queue, node_modules: Path, redis_url: str
) -> str:
    """A job that is active, and nobody there who runs it."""
    job_id = await node.add("stick")
    if victim == "us":
        await HandWorker(queue, lock_ms=LOCK_MS).take_one()
    else:
        async with dying_node_worker(node, node_modules, redis_url):
            await node.job_in("active", job_id)
    return job_id


@asynccontextmanager
async def judging(judge: str, node: NodeQueue, app: App, queue: Queue) -> AsyncIterator[None]:
    """Only the stall checks of one side, while the queue is paused: nothing is taken."""
    if judge == "node":
        await node.work(**AS_NODE)
        yield
        await node("stopWorking")
        return
    care = Maintenance(app.connection, queue.ref, interval_s=CHECK_MS / 1_000, grace_s=0)

    async def again_and_again() -> None:
        while True:
            await care.run_once()
            await asyncio.sleep(CHECK_MS / 1_000)

    checks = asyncio.create_task(again_and_again())
    yield
    checks.cancel()


@pytest.mark.parametrize("taker", SIDES)
@pytest.mark.parametrize("judge", SIDES)
@pytest.mark.parametrize("victim", SIDES)
async def test_a_dead_workers_job_is_judged_by_one_and_run_by_another(
    node: NodeQueue, app: App, queue: Queue, node_modules: Path, redis_url: str, *,
    victim: str, judge: str, taker: str,
) -> None:  # fmt: skip
    job_id = await die_with_a_job(victim, node, queue, node_modules, redis_url)
    await queue.pause()
    async with judging(judge, node, app, queue):
        assert (await node.job_in("waiting", job_id))["stalledCounter"] == 1
    await queue.resume()

    if taker == "us":
        async with at_work(app):
            job = await node.job_in("completed", job_id)
    else:
        await node.work(**AS_NODE)
        job = await node.job_in("completed", job_id)

    assert (job["attemptsMade"], job["attemptsStarted"], job["stalledCounter"]) == (1, 2, 1)
    assert (await node("counts"))["active"] == 0
    kinds = [event for event, fields in await node.heard(completed=1) if "jobId" in fields]
    assert kinds == ["added", "waiting", "active", "waiting", "stalled", "active", "completed"]


async def test_jobs_of_a_killed_node_worker_are_finished_where_only_ours_is_left(
    node: NodeQueue, app: App, node_modules: Path, redis_url: str
) -> None:
    ids = [await node.add("stick") for _ in range(3)]
    async with dying_node_worker(node, node_modules, redis_url):
        for job_id in ids:
            await node.job_in("active", job_id)

    async with at_work(app, stalled_interval_ms=CHECK_MS):
        jobs = [await node.job_in("completed", job_id) for job_id in ids]

    assert [job["stalledCounter"] for job in jobs] == [1, 1, 1]


async def test_a_living_node_workers_job_stays_its_own_under_our_checks(
    node: NodeQueue, app: App, redis: aioredis.Redis
) -> None:
    job_id = await node.add("hold")
    await node.work(**AS_NODE)
    await node.job_in("active", job_id)

    async with at_work(app, stalled_interval_ms=CHECK_MS):
        mark = f"{app.prefix}:mail:stalled-check"
        first = await eventually(lambda: redis.get(mark))
        looked: set[object] = {first}

        async def five_looks() -> bool:
            looked.add(await redis.get(mark))
            return len(looked) > 5

        await eventually(five_looks)
        await redis.lpush(f"{app.prefix}-gate", "go")
        job = await node.job_in("completed", job_id)

    assert (job["attemptsStarted"], job.get("stalledCounter", 0)) == (1, 0)


async def test_nodes_limit_of_stalls_fails_nothing_while_ours_lives(
    node: NodeQueue, app: App, queue: Queue
) -> None:
    async with at_work(app, stalled_interval_ms=CHECK_MS):
        await queue.pause()
        await node.work(**AS_NODE, maxStalledCount=0)
        job_id = await node.add("stick")
        await _take_and_vanish(app, job_id)
        job = await node.job_in("waiting", job_id)
        assert "deferredFailure" not in job
        await queue.resume()

        job = await node.job_in("completed", job_id)

    assert job["stalledCounter"] == 1


async def _take_and_vanish(app: App, job_id: str) -> None:
    """What a dead worker of Node leaves: the job is active, its lock has run out."""
    reader, base = app.connection.reader, f"{app.prefix}:mail"
    for waits in ("wait", "paused"):
        await reader.lrem(f"{base}:{waits}", 0, job_id)
    await reader.lpush(f"{base}:active", job_id)


async def test_what_node_has_given_up_on_runs_here_within_our_limit(
    node: NodeQueue, app: App, queue: Queue
) -> None:
    job_id = await node.add("double", {"n": 3})
    await queue.pause()
    await _take_and_vanish(app, job_id)
    await node.work(**AS_NODE, maxStalledCount=0)
    await node.job_in("waiting", job_id)
    await node("stopWorking")
    before = await queue.job(job_id)
    await queue.resume()

    async with at_work(app):
        job = await node.job_in("completed", job_id)

    assert before is not None
    assert before.deferred_failure == STALLED_TOO_OFTEN
    assert (job["returnvalue"], job["stalledCounter"]) == (6, 1)


async def test_what_node_has_given_up_on_fails_where_we_do_not_judge_for_it(
    node: NodeQueue, app: App, queue: Queue
) -> None:
    job_id = await node.add("double", {"n": 3})
    await queue.pause()
    await _take_and_vanish(app, job_id)
    await node.work(**AS_NODE, maxStalledCount=0)
    await node.job_in("waiting", job_id)
    await node("stopWorking")
    await queue.resume()

    async with at_work(app, recover_foreign=False):
        job = await node.job_in("failed", job_id)

    assert (job["failedReason"], job["attemptsMade"]) == (STALLED_TOO_OFTEN, 1)


async def test_node_judges_again_when_our_last_worker_has_gone(
    node: NodeQueue, app: App, queue: Queue, redis: aioredis.Redis
) -> None:
    async with at_work(app, stalled_interval_ms=CHECK_MS):
        await eventually(lambda: redis.exists(f"{app.prefix}:mail:stalled-check"))
    job_id = await node.add("double", {"n": 1})
    await _take_and_vanish(app, job_id)
    await redis.pexpire(f"{app.prefix}:mail:stalled-check", 1)  # ours has gone long ago

    await node.work(**AS_NODE)

    assert (await node.job_in("completed", job_id))["stalledCounter"] == 1
    assert await queue.state(job_id) is JobState.COMPLETED
