"""Pause and resume by one side, seen by the other; what is added meanwhile is not lost."""

from __future__ import annotations

import pytest
import redis.asyncio as aioredis

from tests.conftest import eventually
from tests.interop.bullmq import NodeProcess, NodeQueue
from tests.interop.tasks import at_work, ledger, sample
from tickbird import App, Queue

pytestmark = pytest.mark.interop


async def _is_paused_here(app: App) -> bool:
    return (await sample(app)).paused


async def _told(node: NodeQueue) -> list[str]:
    """The kinds of event until the first job is done."""
    kinds = [event for event, _ in await node.heard(completed=1)]
    return kinds[: kinds.index("completed") + 1]


async def _add_from_both(node: NodeQueue, queue: Queue, first: int) -> None:
    """Four jobs numbered from `first`, every kind from either side."""
    await node.add("count", {"n": first})
    await queue.add("count", {"n": first + 1})
    await node.add("count", {"n": first + 2}, priority=2)
    await queue.add("count", {"n": first + 3}, priority=1)


async def _all_run_once(app: App, node: NodeQueue, redis: aioredis.Redis, n: int) -> None:
    async with at_work(app):
        await eventually(lambda: node.has(completed=n))
    assert await ledger(redis, app) == {str(number): "1" for number in range(n)}


async def test_a_pause_of_node_is_seen_and_held_by_us(
    node: NodeQueue, app: App, queue: Queue
) -> None:
    async with at_work(app):
        await node("pause")
        handle = await queue.add("double", {"n": 1})
        assert await _is_paused_here(app)

        await node("resume")

        await node.job_in("completed", handle.id)
        assert not await _is_paused_here(app)
    assert await _told(node) == ["paused", "added", "waiting", "resumed", "active", "completed"]


async def test_a_pause_of_ours_is_seen_and_held_by_node(node: NodeQueue, queue: Queue) -> None:
    await node.work()
    await queue.pause()
    handle = await queue.add("double", {"n": 1})
    assert await node("isPaused")

    await queue.resume()

    await node.job_in("completed", handle.id)
    assert not await node("isPaused")
    assert await _told(node) == ["paused", "added", "waiting", "resumed", "active", "completed"]


@pytest.mark.parametrize("who", ["node, node", "node, us", "us, node", "us, us"])
async def test_no_job_is_lost_over_a_pause_and_a_resume(
    node: NodeQueue, app: App, queue: Queue, redis: aioredis.Redis, who: str
) -> None:
    pauser, resumer = who.split(", ")
    await _add_from_both(node, queue, 0)
    await (node("pause") if pauser == "node" else queue.pause())
    await _add_from_both(node, queue, 4)
    depth = (await sample(app)).depth

    await (node("resume") if resumer == "node" else queue.resume())

    assert depth == 8
    await _all_run_once(app, node, redis, 8)


@pytest.mark.parametrize("resumer", ["node", "us"])
async def test_no_job_is_lost_over_a_pause_of_an_empty_queue(
    node: NodeQueue, app: App, queue: Queue, redis: aioredis.Redis, resumer: str
) -> None:
    await node("pause")
    await queue.add("count", {"n": 0})
    await node.add("count", {"n": 1})
    await queue.add("count", {"n": 2})

    await (node("resume") if resumer == "node" else queue.resume())

    await _all_run_once(app, node, redis, 3)


async def test_two_pauses_and_one_resume_lose_nothing(
    node: NodeQueue, app: App, queue: Queue, redis: aioredis.Redis
) -> None:
    await queue.pause()
    await _add_from_both(node, queue, 0)
    await queue.pause()
    await queue.resume()
    await node("pause")
    await _add_from_both(node, queue, 4)
    await queue.resume()

    await _all_run_once(app, node, redis, 8)


async def test_what_failed_before_is_not_lost_when_replayed_while_paused(
    node: NodeQueue, app: App, queue: Queue
) -> None:
    job_id = await node.add("flaky", {"who": "a"})
    async with at_work(app):
        await node.job_in("failed", job_id)
        await node("pause")
        await queue.replay([job_id])
        await node("resume")

        await node.job_in("completed", job_id)


async def test_an_older_pause_with_our_adds_is_resumed_by_a_newer_client(
    node_processes: dict[str, NodeProcess], app: App, queue: Queue, redis: aioredis.Redis
) -> None:
    older = NodeQueue(node_processes["bullmq5"], app.prefix, "mail")
    newer = NodeQueue(node_processes["bullmq"], app.prefix, "mail")
    await older.add("count", {"n": 0})
    await older("pause")
    await queue.add("count", {"n": 1})
    await older.add("count", {"n": 2})
    await newer("resume")

    await _all_run_once(app, newer, redis, 3)
    await older.close()
    await newer.close()
