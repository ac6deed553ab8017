"""What one side adds, the other runs, and the first sees how it ended."""

from __future__ import annotations

from typing import Any

import pytest
import redis.asyncio as aioredis

from tests.conftest import eventually
from tests.interop.bullmq import NodeQueue
from tests.interop.tasks import at_work
from tickbird import App, Backoff, JobState, Keep, Queue

pytestmark = pytest.mark.interop


# --- Node adds, we run ----------------------------------------------------------


async def test_we_run_a_job_of_node_and_node_has_its_result(node: NodeQueue, app: App) -> None:
    job_id = await node.add("echo", {"to": "a@example.org", "deep": [1, {"é": None}]})

    async with at_work(app):
        outcome = await node("outcome", id=job_id)

    job = await node("job", id=job_id)
    assert outcome == {"value": {"to": "a@example.org", "deep": [1, {"é": None}]}}
    assert (job["state"], job["attemptsMade"], job["attemptsStarted"]) == ("completed", 1, 1)
    assert job["timestamp"] <= job["processedOn"] <= job["finishedOn"]


async def test_we_run_what_node_adds_while_we_are_idle(node: NodeQueue, app: App) -> None:
    async with at_work(app):
        first = await node("outcome", id=await node.add("double", {"n": 1}))
        second = await node("outcome", id=await node.add("double", {"n": 2}))

    assert (first, second) == ({"value": 2}, {"value": 4})


async def test_a_delayed_job_of_node_is_run_by_us_and_not_early(node: NodeQueue, app: App) -> None:
    async with at_work(app):
        job_id = await node.add("double", {"n": 4}, delay=150)
        job = await node.job_in("completed", job_id)

    assert job["returnvalue"] == 8
    assert job["processedOn"] >= job["timestamp"] + 150
    assert job["delay"] == 0


async def test_priorities_and_lifo_of_node_decide_the_order_we_run_in(
    node: NodeQueue, app: App
) -> None:
    await node.add("echo", {"name": "a"})
    await node.add("echo", {"name": "b"})
    await node.add("echo", {"name": "c"}, lifo=True)
    await node.add("echo", {"name": "e"}, priority=5)
    await node.add("echo", {"name": "d"}, priority=1)

    async with at_work(app, concurrency=1):
        assert await _order_run_in(node, 5) == list("cabde")


async def test_a_bulk_of_node_is_run_by_us_whole(node: NodeQueue, app: App) -> None:
    jobs = [{"name": "double", "data": {"n": n}, "opts": {}} for n in range(50)]
    ids = await node("addBulk", jobs=jobs)

    async with at_work(app):
        await eventually(lambda: node.has(completed=50))

    done = {job["id"]: job["returnvalue"] for job in await node("jobs", types=["completed"])}
    assert done == {job_id: n * 2 for n, job_id in enumerate(ids)}


async def test_a_custom_id_of_node_is_the_jobs_id_here_too(
    node: NodeQueue, app: App, queue: Queue
) -> None:
    first = await node.add("echo", {"n": 1}, jobId="order-7")
    ours = await queue.add("echo", {"n": 2}, job_id="order-7")

    async with at_work(app):
        outcome = await node("outcome", id="order-7")

    assert (first, ours.id, ours.created) == ("order-7", "order-7", False)
    assert outcome == {"value": {"n": 1}}


@pytest.mark.parametrize(("rule", "left"), [(True, 0), (1, 1), ({"count": 2}, 2), (False, 3)])
async def test_we_keep_as_many_finished_jobs_as_node_asked_for(
    node: NodeQueue, app: App, rule: Any, left: int
) -> None:
    for n in range(3):
        await node.add("double", {"n": n}, removeOnComplete=rule)

    async with at_work(app, concurrency=1):
        await node.heard(completed=3)

    assert (await node("counts"))["completed"] == left
    assert len(await node("jobs", types=["completed"])) == left


async def test_jobs_of_node_without_a_rule_are_all_kept_by_us(
    node: NodeQueue, redis_url: str, prefix: str
) -> None:
    app = App(redis=redis_url, prefix=prefix, keep_completed=Keep(count=1))

    @app.task(name="echo", queue="mail")
    async def echo(**data: Any) -> Any:
        return data

    for n in range(5):
        await node.add("echo", {"n": n})
        await app.queue("mail").add("echo", {"n": n}, keep_completed=True)

    async with at_work(app):
        await eventually(lambda: node.has(completed=10))
    await app.aclose()


# --- we add, Node runs ----------------------------------------------------------


async def test_node_runs_a_job_of_ours_and_we_have_its_result(
    node: NodeQueue, queue: Queue
) -> None:
    handle = await queue.add("echo", {"to": "a@example.org", "deep": [1, {"é": None}]})

    await node.work()
    await node.job_in("completed", handle.id)

    job = await handle.job()
    assert job is not None
    assert (job.state, job.attempts_made, job.attempts_started) == (JobState.COMPLETED, 1, 1)
    assert job.result == '{"to":"a@example.org","deep":[1,{"é":null}]}'


async def test_node_runs_what_we_add_while_it_is_idle(node: NodeQueue, queue: Queue) -> None:
    await node.work()

    first = await queue.add("double", {"n": 1})
    await node.job_in("completed", first.id)
    second = await queue.add("double", {"n": 2})
    await node.job_in("completed", second.id)

    jobs = [await first.job(), await second.job()]
    assert [job.result for job in jobs if job] == ["2", "4"]


async def test_a_delayed_job_of_ours_is_run_by_node_and_not_early(
    node: NodeQueue, queue: Queue
) -> None:
    await node.work()

    handle = await queue.add("double", {"n": 4}, delay=0.15)
    job = await node.job_in("completed", handle.id)

    assert job["processedOn"] >= job["timestamp"] + 150
    assert job["opts"]["delay"] == 150


async def test_our_priorities_and_lifo_decide_the_order_node_runs_in(
    node: NodeQueue, queue: Queue
) -> None:
    await queue.add_many(
        [
            ("echo", {"name": "a"}), ("echo", {"name": "b"}), ("echo", {"name": "c"}, {"lifo": True}),
            ("echo", {"name": "e"}, {"priority": 5}), ("echo", {"name": "d"}, {"priority": 1}),
        ]
    )  # fmt: skip

    await node.work()

    assert await _order_run_in(node, 5) == list("cabde")


async def test_a_bulk_of_ours_is_run_by_node_whole(node: NodeQueue, queue: Queue) -> None:
    handles = await queue.add_many([("double", {"n": n}) for n in range(50)])

    await node.work(concurrency=10)
    await eventually(lambda: node.has(completed=50))

    done = {job["id"]: job["returnvalue"] for job in await node("jobs", types=["completed"])}
    assert done == {handle.id: n * 2 for n, handle in enumerate(handles)}


async def test_node_finds_the_job_of_an_id_of_ours_instead_of_adding(
    node: NodeQueue, queue: Queue
) -> None:
    await queue.add("echo", {"n": 1}, job_id="order-7")

    again = await node.add("echo", {"n": 2}, jobId="order-7")

    assert again == "order-7"
    assert (await node("job", id="order-7"))["data"] == {"n": 1}
    assert (await node("counts"))["waiting"] == 1


async def test_node_keeps_what_our_jobs_ask_for(node: NodeQueue, queue: Queue) -> None:
    for keep in (False, Keep(count=1), True):
        await queue.add("double", {"n": 1}, keep_completed=keep)

    await node.work()
    await node.heard(completed=3)

    left = await node("jobs", types=["completed"])
    assert [job["opts"].get("removeOnComplete") for job in left] == [{"count": 1}, False]


async def test_node_retries_a_job_of_ours_by_our_back_off(node: NodeQueue, queue: Queue) -> None:
    backoff = Backoff("exponential", 0.03, jitter=0)
    handle = await queue.add("fail", {"reason": "no"}, attempts=3, backoff=backoff)

    await node.work()
    await node.job_in("failed", handle.id)

    job = await handle.job()
    assert job is not None
    assert (job.attempts_made, job.attempts, job.error) == (3, 3, "no")
    assert len(job.stacktraces) == 3


# --- both -----------------------------------------------------------------------


async def test_node_can_read_every_field_we_write(
    node: NodeQueue, app: App, queue: Queue, redis: aioredis.Redis
) -> None:
    every_kind: list[tuple[str, Any, dict[str, Any]]] = [
        ("echo", {"n": 1}, {}),
        ("echo", {}, {"delay": "1h", "timestamp_ms": 2_000_000_000_000}),
        ("echo", {}, {"priority": 7, "attempts": 4, "backoff": "2s"}),
        ("echo", {}, {"job_id": "own|id", "keep_completed": Keep(age="1h", count=5)}),
        ("fail", {"reason": "line 1\nline 2 \u2028 'quoted'"}, {"keep_failed": 10}),
        ("fail", {"reason": "later"}, {"attempts": 2, "backoff": Backoff("exponential", "1h")}),
        ("double", {"n": 2}, {"lifo": True}),
        ("nobody", "text", {}),
    ]
    async with at_work(app, name="w with space"):
        handles = await queue.add_many(every_kind)
        await eventually(lambda: node.has(failed=2))
        await eventually(lambda: node.has(completed=4))
    await queue.replay([handles[4].id])

    jobs = {job["id"]: job for job in await node("jobs", types=None)}

    assert set(jobs) == {handle.id for handle in handles}
    for handle in handles:
        job = jobs[handle.id]
        assert isinstance(job["opts"]["attempts"], int)
        assert isinstance(job["stacktrace"], list)
        assert set(await redis.hkeys(f"{queue.ref.prefix}:mail:{handle.id}")) >= {"name", "data"}
    assert jobs[handles[2].id]["opts"]["backoff"] == {"type": "fixed", "delay": 2000}
    assert jobs[handles[5].id]["state"] == "delayed"
    assert jobs[handles[5].id]["stacktrace"][0].endswith("ValueError: later")
    assert jobs[handles[0].id]["processedBy"] == "w with space"


async def _order_run_in(node: NodeQueue, n: int) -> list[str]:
    """The `name` in the data of each job, in the order they were started."""
    events = await node.heard(completed=n)
    started = [fields["jobId"] for event, fields in events if event == "active"]
    names = {job["id"]: job["data"]["name"] for job in await node("jobs", types=["completed"])}
    return [names[job_id] for job_id in started]
