"""Node's QueueEvents on our jobs."""

from __future__ import annotations

import asyncio

import pytest

from tests.interop.bullmq import NodeQueue
from tests.interop.tasks import at_work
from tickbird import App, Queue

pytestmark = pytest.mark.interop

EXPECTED = [
    ("added", "a"), ("waiting", "a"), ("duplicated", "a"), ("paused", None),
    ("added", "b"), ("waiting", "b"), ("resumed", None),
    ("active", "a"), ("completed", "a"),
    ("active", "b"), ("waiting", "b"), ("active", "b"), ("failed", "b"),
    ("retries-exhausted", "b"), ("drained", None),
    ("added", "c"), ("delayed", "c"), ("waiting", "b"),
]  # fmt: skip


async def test_node_hears_everything_that_happens_to_our_jobs(
    node: NodeQueue, app: App, queue: Queue
) -> None:
    await queue.add("double", {"n": 1}, job_id="a")
    await queue.add("double", {"n": 1}, job_id="a")
    await queue.pause()
    await queue.add("fail", {"reason": "no"}, job_id="b", priority=3, attempts=2, backoff=0)
    await queue.resume()
    async with at_work(app, concurrency=1):
        await node.job_in("failed", "b")
    await queue.add("double", {"n": 2}, job_id="c", delay="1h")
    await queue.replay(["b"])

    heard = await node.heard(waiting=4)

    events = [(event, fields.get("jobId")) for event, fields in heard]
    assert events == EXPECTED


async def test_what_node_hears_carries_result_reason_and_due_time(
    node: NodeQueue, app: App, queue: Queue
) -> None:
    good = await queue.add("echo", {"n": [1, "ü"]})
    bad = await queue.add("fail", {"reason": "not JSON: {"}, attempts=1)
    late = await queue.add("echo", delay="1h")
    async with at_work(app):
        await node.job_in("completed", good.id)
        await node.job_in("failed", bad.id)

    events = await node.heard(completed=1, failed=1)
    told = {(event, fields["jobId"]): fields for event, fields in events if "jobId" in fields}
    delayed = await late.job()
    assert delayed is not None
    assert told["completed", good.id]["returnvalue"] == {"n": [1, "ü"]}
    assert told["failed", bad.id]["failedReason"] == "not JSON: {"
    assert int(told["delayed", late.id]["delay"]) == delayed.due_at_ms


async def test_waiting_in_node_for_our_results_resolves_and_rejects(
    node: NodeQueue, app: App, queue: Queue
) -> None:
    good = [await queue.add("double", {"n": n}) for n in range(5)]
    bad = await queue.add("fail", {"reason": "card declined"}, attempts=1)
    await node("listen")

    async with at_work(app):
        outcomes = await asyncio.gather(*(node("outcome", id=handle.id) for handle in [*good, bad]))

    assert outcomes == [{"value": n * 2} for n in range(5)] + [{"error": "card declined"}]


async def test_waiting_in_node_for_a_job_that_is_done_returns_at_once(
    node: NodeQueue, app: App, queue: Queue
) -> None:
    handle = await queue.add("double", {"n": 4})
    async with at_work(app):
        await node.job_in("completed", handle.id)

    assert await node("outcome", id=handle.id) == {"value": 8}


async def test_a_task_that_returns_nothing_gives_node_null(
    node: NodeQueue, app: App, queue: Queue
) -> None:
    handle = await queue.add("count", {"n": 1})
    await node("listen")

    async with at_work(app):
        assert await node("outcome", id=handle.id) == {"value": None}
