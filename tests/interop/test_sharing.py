"""One queue, workers of all clients at once: every job once, and the queue's limits held."""

from __future__ import annotations

from itertools import accumulate

import pytest
import redis.asyncio as aioredis

from tests.conftest import eventually
from tests.factories import HandWorker
from tests.interop.bullmq import NodeProcess, NodeQueue
from tests.interop.tasks import at_work, ledger, sample
from tickbird import App, JobState, Queue, QueueRef

pytestmark = pytest.mark.interop


async def _counts(app: App) -> dict[str, int]:
    """Our counts under Node's names."""
    counts = (await sample(app)).counts
    return {state.value.replace("_", "-"): n for state, n in counts.items()}


async def test_four_thousand_jobs_of_all_clients_are_run_once_each(
    node_processes: dict[str, NodeProcess], app: App, queue: Queue, redis: aioredis.Redis
) -> None:
    newer, older = (NodeQueue(node_processes[p], app.prefix, "mail") for p in ("bullmq", "bullmq5"))
    await newer.work(concurrency=20)
    await older.work(concurrency=20)

    async with at_work(app, concurrency=50):
        for n in range(0, 4_000, 500):
            numbers = range(n, n + 500)
            if n % 1_000:
                jobs = [{"name": "count", "data": {"n": i}} for i in numbers]
                await (newer if n % 2_000 < 1_000 else older)("addBulk", jobs=jobs)
            else:
                await queue.add_many(
                    [("count", {"n": i}, {"keep_completed": True}) for i in numbers]
                )

        await eventually(lambda: newer.has(completed=4_000), within_s=60)
    await newer("stopWorking")
    await older("stopWorking")

    counts = await newer("counts")
    base = f"{app.prefix}:mail"
    assert await ledger(redis, app) == {str(n): "1" for n in range(4_000)}
    assert set(await ledger(redis, app, "runners")) == {"tickbird", "bullmq", "bullmq5"}
    assert {state: n for state, n in counts.items() if n} == {"completed": 4_000}
    assert [key async for key in redis.scan_iter(f"{base}:*:lock", count=10_000)] == []
    assert await redis.exists(f"tickbird:{base}:locks") == 0
    await newer.close()
    await older.close()


async def test_both_sides_count_every_state_alike(node: NodeQueue, app: App, queue: Queue) -> None:
    await node.add("double", {"n": 1})
    await queue.add("fail", {"reason": "no"}, attempts=1)
    async with at_work(app):
        await eventually(lambda: node.has(completed=1, failed=1))
    await node.add("echo")
    await HandWorker(queue).take_one()
    for _ in range(2):
        await node.add("echo")
        await queue.add("echo")
        await node.add("echo", delay=3_600_000)
        await queue.add("echo", priority=3)
    child = {"name": "echo", "queueName": "mail", "data": {}}
    await node("flow", tree={"name": "echo", "queueName": "mail", "children": [child]})

    theirs, ours = await node("counts"), await _counts(app)

    theirs.pop("paused", None)  # of the older client, which counts waiting apart while paused
    assert ours == theirs == {
        "waiting": 5, "prioritized": 2, "delayed": 2, "active": 1, "completed": 1, "failed": 1,
        "waiting-children": 1,
    }  # fmt: skip


async def test_both_sides_page_through_the_same_jobs(
    node: NodeQueue, app: App, queue: Queue
) -> None:
    for n in range(6):
        await (node.add("echo", {"n": n}) if n % 2 else queue.add("echo", {"n": n}))
        await queue.add("echo", {"n": n}, priority=n + 1)

    waiting = await app.inspector.list_jobs(queue.ref, JobState.WAITING)
    prioritized = await app.inspector.list_jobs(queue.ref, JobState.PRIORITIZED)

    assert [job.id for job in waiting] == [j["id"] for j in await node("jobs", types=["waiting"])]
    assert [job.id for job in prioritized] == [
        job["id"] for job in await node("jobs", types=["prioritized"])
    ]


async def test_each_side_sees_the_others_workers(node: NodeQueue, app: App) -> None:
    await node.work(name="alpha")

    async with at_work(app, name="beta"):

        async def both_see_both() -> bool:
            seen, names = await sample(app), await node("workers")
            return (len(names), len(seen.workers), seen.foreign_workers) == (2, 1, 1)

        await eventually(both_see_both)
        names = await node("workers")

    base = names[0].partition(":w:")[0]
    assert f"{base}:w:alpha" in names
    assert all(name.startswith(f"{base}:w:") for name in names)


async def test_a_queue_only_node_has_used_is_discovered(node: NodeQueue, app: App) -> None:
    await node.add("echo")

    async def is_discovered() -> bool:
        return QueueRef("mail", app.prefix) in await app.inspector.discover()

    await eventually(is_discovered)


@pytest.mark.parametrize("with_node", [False, True], ids=["ours", "mixed"])
async def test_the_queues_concurrency_set_by_node_is_held(
    node: NodeQueue, app: App, queue: Queue, *, with_node: bool
) -> None:
    await node("concurrency", max=3)
    if with_node:
        await node.work(concurrency=5)

    async with at_work(app, concurrency=20):
        await queue.add_many([("double", {"n": n}) for n in range(60)])
        events = await node.heard(completed=60)

    changes = {"active": 1, "completed": -1}
    most = max(accumulate(changes.get(event, 0) for event, _ in events))
    assert most <= 3
    assert with_node or most == 3


@pytest.mark.parametrize("with_node", [False, True], ids=["ours", "mixed"])
async def test_the_queues_rate_limit_set_by_node_is_held(
    node: NodeQueue, app: App, queue: Queue, *, with_node: bool
) -> None:
    most, window_ms, clocks_ms = 4, 300, 20
    await node("rateLimit", max=most, duration=window_ms)
    if with_node:
        await node.work(concurrency=5)

    await queue.add_many([("double", {"n": n}) for n in range(12)])
    async with at_work(app, concurrency=20):
        await node.heard(completed=12)

    started = sorted(job["processedOn"] for job in await node("jobs", types=["completed"]))
    assert len(started) == 12
    # At most `most` a window; a window begins with its first start: so any 2 * most + 1 span one.
    for first, last in zip(started, started[2 * most :], strict=False):
        assert last - first >= window_ms - clocks_ms
