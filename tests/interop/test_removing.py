"""What Node deletes, under our hands or not."""

from __future__ import annotations

import asyncio

import pytest
import redis.asyncio as aioredis

from tests.interop.bullmq import NodeError, NodeQueue
from tests.interop.tasks import at_work
from tickbird import App, JobState, Queue

pytestmark = pytest.mark.interop


def add_gate(app: App) -> tuple[asyncio.Event, asyncio.Event]:
    """A task `gate`; gives what is set when it runs, and what lets it end."""
    runs, may_end = asyncio.Event(), asyncio.Event()

    @app.task(queue="mail")
    async def gate() -> None:
        runs.set()
        await may_end.wait()

    return runs, may_end


async def test_a_job_node_removes_is_gone_here(node: NodeQueue, app: App, queue: Queue) -> None:
    gone = await queue.add("double", {"n": 1})
    stays = await queue.add("double", {"n": 2})

    await node("remove", id=gone.id)

    assert (await gone.state(), await gone.job()) == (JobState.UNKNOWN, None)
    async with at_work(app):
        await node.job_in("completed", stays.id)
    assert (await node("counts"))["completed"] == 1


async def test_node_does_not_remove_a_job_that_runs_here(node: NodeQueue, app: App) -> None:
    runs, may_end = add_gate(app)
    job_id = await node.add("gate")

    async with at_work(app):
        await runs.wait()
        with pytest.raises(NodeError, match="locked"):
            await node("remove", id=job_id)
        may_end.set()

        await node.job_in("completed", job_id)


async def test_a_queue_that_node_destroys_under_a_running_job_goes_on_here(
    node: NodeQueue, app: App, queue: Queue, redis: aioredis.Redis
) -> None:
    runs, may_end = add_gate(app)
    gone = await queue.add("gate", job_id="gone")

    async with at_work(app):
        await runs.wait()
        await node("obliterate")
        may_end.set()
        after = await queue.add("double", {"n": 4})
        await node.job_in("completed", after.id)

    assert await gone.state() is JobState.UNKNOWN
    assert [key async for key in redis.scan_iter(f"{app.prefix}:mail:gone*")] == []
    assert await node("counts") == {**dict.fromkeys(await node("counts"), 0), "completed": 1}
