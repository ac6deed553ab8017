"""Workers that are killed with jobs in hand: the other side, or another of ours, finishes them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis.asyncio as aioredis

from tests.conftest import eventually
from tests.factories import HandWorker, expire_lock
from tests.interop.bullmq import NodeProcess, NodeQueue
from tests.interop.tasks import at_work, ledger
from tickbird import App, Queue
from tickbird.maintenance import Maintenance

pytestmark = pytest.mark.interop

ROOT = Path(__file__).parents[2]
LOCK_MS = 500
CHECK_MS = 200


@contextmanager
def killable_worker(redis_url: str, prefix: str) -> Iterator[subprocess.Popen[bytes]]:
    """A worker of ours in a process of its own, which never finishes `stick`."""
    process = subprocess.Popen(
        [
            sys.executable, "-m", "tickbird.cli", "worker", "tests.interop.killable:app",
            "-q", "mail", "--lock-ms", str(LOCK_MS), "--redis-url", redis_url,
        ],
        cwd=ROOT,
        env={
            **os.environ, "TICKBIRD_INTEROP_PREFIX": prefix, "TICKBIRD_REDIS_URL": redis_url,
        },
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.wait(timeout=10)


async def _die_with_three_jobs(
    node: NodeQueue, process: subprocess.Popen[bytes] | NodeProcess
) -> list[str]:
    ids = [await node.add("stick") for _ in range(3)]
    for job_id in ids:
        await node.job_in("active", job_id)
    process.kill()
    return ids


async def _assert_free_after_one_stall(node: NodeQueue, ids: list[str]) -> None:
    for job_id in ids:
        job = await node.job_in("completed", job_id)
        assert job["returnvalue"] == "free"
        assert (job["attemptsMade"], job["attemptsStarted"], job["stalledCounter"]) == (1, 2, 1)


async def test_jobs_of_our_killed_worker_are_finished_by_another_of_ours(
    node: NodeQueue, app: App, redis_url: str
) -> None:
    with killable_worker(redis_url, app.prefix) as process:
        ids = await _die_with_three_jobs(node, process)

    async with at_work(app, lock_ms=LOCK_MS, stalled_interval_ms=CHECK_MS):
        await _assert_free_after_one_stall(node, ids)

    assert (await node("counts"))["active"] == 0


async def test_no_job_is_lost_when_one_of_three_workers_is_killed_in_the_middle(
    node: NodeQueue, app: App, queue: Queue, redis: aioredis.Redis, redis_url: str
) -> None:
    numbers = range(2_000)
    await queue.add_many([("count", {"n": n}, {"keep_completed": True}) for n in numbers])
    with killable_worker(redis_url, app.prefix) as process:
        await node.heard(completed=1)
        async with at_work(app, lock_ms=LOCK_MS, stalled_interval_ms=CHECK_MS):
            await node.work(concurrency=5, lockDuration=LOCK_MS, stalledInterval=CHECK_MS)
            await queue.add_many([("stick", {}, {"keep_completed": True})] * 3)
            process.kill()

            await eventually(lambda: node.has(completed=len(numbers) + 3))

    runs = await ledger(redis, app)
    assert sorted(runs, key=int) == [str(n) for n in numbers]
    assert sum(int(times) for times in runs.values()) <= len(numbers) + 10  # what it had in hand


async def test_jobs_of_our_killed_worker_are_finished_by_node(
    node: NodeQueue, app: App, redis: aioredis.Redis, redis_url: str
) -> None:
    with killable_worker(redis_url, app.prefix) as process:
        ids = await _die_with_three_jobs(node, process)
    await redis.pexpire(f"{app.prefix}:mail:stalled-check", 1)  # or Node waits ten seconds for ours

    await node.work(lockDuration=LOCK_MS, stalledInterval=CHECK_MS)
    await _assert_free_after_one_stall(node, ids)
    await node("stopWorking")

    # What we still have written about them does not bring them back.
    async with at_work(app, lock_ms=LOCK_MS, stalled_interval_ms=100):

        async def is_forgotten() -> bool:
            return await redis.exists(f"tickbird:{app.prefix}:mail:locks") == 0

        await eventually(is_forgotten)
    assert (await node("counts"))["completed"] == 3


async def test_jobs_of_a_killed_node_worker_are_finished_while_ours_works_beside_nodes(
    node: NodeQueue, app: App, node_modules: Path, redis_url: str
) -> None:
    victim = NodeProcess(node.process.package, node_modules, redis_url, "sticks")
    doomed = NodeQueue(victim, app.prefix, "mail")
    await doomed.work(lockDuration=LOCK_MS, stalledInterval=CHECK_MS, concurrency=5)
    ids = await _die_with_three_jobs(node, victim)

    async with at_work(app, lock_ms=LOCK_MS, stalled_interval_ms=CHECK_MS):
        await node.work(lockDuration=LOCK_MS, stalledInterval=CHECK_MS)
        await _assert_free_after_one_stall(node, ids)


async def test_a_job_we_gave_up_on_is_failed_by_node_without_a_run(
    node: NodeQueue, app: App, queue: Queue, redis: aioredis.Redis
) -> None:
    handle = await queue.add("double", {"n": 1}, attempts=5)
    await HandWorker(queue).take_one()
    await redis.hset(f"{queue.ref.prefix}:mail:{handle.id}", "stc", "3")
    await expire_lock(queue, handle.id)
    await Maintenance(app.connection, queue.ref, interval_s=5, grace_s=10).run_once()

    await node.work()
    job = await node.job_in("failed", handle.id)

    assert job["failedReason"] == "job stalled more than allowable limit"
    assert (job["returnvalue"], job["attemptsMade"], job["stalledCounter"]) == (None, 1, 4)
