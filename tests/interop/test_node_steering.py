"""What a running job says and asks for on one side, as the other side sees and continues it."""

from __future__ import annotations

from typing import Any

import pytest
import redis.asyncio as aioredis

from tests.conftest import eventually
from tests.factories import HandWorker
from tests.interop.bullmq import NodeQueue
from tests.interop.tasks import at_work
from tickbird import App, FlowNode, JobState, Queue

pytestmark = pytest.mark.interop

SIDES = ["node", "us"]


async def finished(side: str, node: NodeQueue, app: App, job_id: str) -> dict[str, Any]:
    """The job once that side's worker has finished it."""
    if side == "us":
        async with at_work(app):
            return await node.job_in("completed", job_id)
    await node.work()
    job = await node.job_in("completed", job_id)
    await node("stopWorking")
    return job


# --- what it says -----------------------------------------------------------------


@pytest.mark.parametrize("teller", SIDES)
async def test_progress_log_and_data_are_seen_by_the_other_side(
    node: NodeQueue, app: App, queue: Queue, teller: str
) -> None:
    handle = await queue.add("tell", {"to": "a"})

    shown = await finished(teller, node, app, handle.id)

    job = await handle.job()
    assert job is not None
    assert shown["progress"] == {"done": 1, "of": 2}
    assert job.progress == '{"done":1,"of":2}'
    assert shown["data"] == {"to": "a", "told": True}
    logs = await node("logs", id=handle.id)
    assert (logs["logs"], logs["count"]) == (["first line", "second line"], 2)
    assert job.logs == ("first line", "second line")
    events = await node.heard(completed=1)
    (told,) = [fields for event, fields in events if event == "progress"]
    assert (told["jobId"], told["data"]) == (handle.id, {"done": 1, "of": 2})


async def test_only_as_many_log_lines_stay_as_node_asked_for(node: NodeQueue, app: App) -> None:
    job_id = await node.add("tell", {"to": "a"}, keepLogs=1)

    await finished("us", node, app, job_id)

    assert (await node("logs", id=job_id))["logs"] == ["second line"]


async def test_an_event_of_ones_own_reaches_nodes_listener(node: NodeQueue, queue: Queue) -> None:
    await node("listen")

    await queue.publish_event("greeting", jobId="7", text="hello ü")

    (told,) = [fields for event, fields in await node.heard(greeting=1) if event == "greeting"]
    assert (told["jobId"], told["text"]) == ("7", "hello ü")


@pytest.mark.parametrize("writer", SIDES)
async def test_data_changed_by_one_side_is_what_the_other_runs(
    node: NodeQueue, app: App, queue: Queue, writer: str
) -> None:
    handle = await queue.add("double", {"n": 1})

    if writer == "us":
        assert await queue.update_data(handle.id, {"n": 5})
    else:
        await node("update", id=handle.id, data={"n": 5})

    job = await finished("node" if writer == "us" else "us", node, app, handle.id)
    assert job["returnvalue"] == 10


# --- what it asks for ---------------------------------------------------------------


@pytest.mark.parametrize("second", SIDES)
@pytest.mark.parametrize("first", SIDES)
async def test_a_job_that_asks_to_run_later_spends_no_attempt(
    node: NodeQueue, app: App, queue: Queue, first: str, second: str
) -> None:
    hour_ms = 3_600_000
    handle = await queue.add("later", {"ms": hour_ms}, attempts=1)
    if first == "us":
        async with at_work(app):
            shown = await node.job_in("delayed", handle.id)
    else:
        await node.work()
        shown = await node.job_in("delayed", handle.id)
        await node("stopWorking")
    job = await handle.job()

    # The other side's worker will ask, too, as it has not met the job before.
    await queue.update_data(handle.id, {"ms": 1})
    await node("promote", id=handle.id)
    done = await finished(second, node, app, handle.id)

    assert job is not None
    assert job.due_at_ms is not None
    assert job.started_at_ms is not None
    assert (shown["attemptsMade"], shown["attemptsStarted"]) == (0, 1)
    assert 0 <= job.due_at_ms - job.started_at_ms - hour_ms < 60_000
    assert (done["returnvalue"], done["attemptsMade"]) == ("ran again", 1)
    assert done["attemptsStarted"] == (2 if first == second else 3)


@pytest.mark.parametrize("priority", [0, 3])
@pytest.mark.parametrize("side", SIDES)
async def test_a_job_that_is_put_back_comes_before_the_others(
    node: NodeQueue, app: App, queue: Queue, side: str, priority: int
) -> None:
    handle = await queue.add("putBack", {}, priority=priority)
    await queue.add("echo", {}, priority=priority)

    if side == "us":
        async with at_work(app, concurrency=1):
            await eventually(lambda: node.has(completed=2))
    else:
        await node.work()
        await eventually(lambda: node.has(completed=2))

    events = await node.heard(completed=2)
    started = [fields["jobId"] for event, fields in events if event == "active"]
    assert started[:2] == [handle.id, handle.id]
    job = await node("job", id=handle.id)
    assert (job["attemptsMade"], job["attemptsStarted"]) == (1, 2)


@pytest.mark.parametrize("side", SIDES)
async def test_a_job_that_says_rate_limited_holds_the_queue_for_both(
    node: NodeQueue, app: App, queue: Queue, redis: aioredis.Redis, side: str
) -> None:
    await queue.set_global_rate_limit("1000/s")
    handle = await queue.add("limited", {"ms": 600})
    limiter = f"{app.prefix}:mail:limiter"

    async def is_held() -> bool:
        return await redis.get(limiter) == "9007199254740991"

    async with at_work(app):
        if side == "us":
            await eventually(is_held)
        shown = await node.job_in("completed", handle.id) if side == "us" else None
    if side == "node":
        await node.work()
        await eventually(is_held)
        async with at_work(app):
            shown = await node.job_in("completed", handle.id)

    assert shown is not None
    first, *_, last = [
        fields for event, fields in await node.heard(completed=1) if event == "active"
    ]
    assert (first["jobId"], last["jobId"]) == (handle.id, handle.id)
    assert (shown["returnvalue"], shown["attemptsMade"]) == ("ran again", 1)


async def test_a_job_cancelled_while_it_waits_is_failed_in_node(
    node: NodeQueue, queue: Queue
) -> None:
    await node("listen")
    ids = [
        await node.add("double", {"n": 1}),
        await node.add("double", {"n": 1}, delay=3_600_000),
        await node.add("double", {"n": 1}, priority=2),
    ]

    assert [await queue.cancel(job_id, "not wanted") for job_id in ids] == [True] * 3

    outcomes = [await node("outcome", id=job_id) for job_id in ids]
    jobs = [await node("job", id=job_id) for job_id in ids]
    assert outcomes == [{"error": "not wanted"}] * 3
    assert [(job["state"], job["attemptsMade"]) for job in jobs] == [("failed", 0)] * 3
    assert (await node("counts"))["failed"] == 3


async def test_a_job_cancelled_while_it_runs_here_is_failed_in_node(
    node: NodeQueue, app: App, queue: Queue
) -> None:
    job_id = await node.add("hold", attempts=5)

    async with at_work(app):
        await node.job_in("active", job_id)
        assert await queue.cancel(job_id, "not wanted")
        job = await node.job_in("failed", job_id)

    assert (job["failedReason"], job["attemptsMade"]) == ("not wanted", 1)


async def test_a_job_that_runs_in_node_is_not_cancelled_by_us(
    node: NodeQueue, queue: Queue, redis: aioredis.Redis, app: App
) -> None:
    job_id = await node.add("hold")
    await node.work()
    await node.job_in("active", job_id)

    assert not await queue.cancel(job_id)
    await redis.lpush(f"{app.prefix}-gate", "go")

    assert (await node.job_in("completed", job_id))["returnvalue"] == "held"


# --- what is counted ----------------------------------------------------------------


async def test_minutes_counted_by_both_sides_are_one_row(
    node: NodeQueue, app: App, queue: Queue, redis: aioredis.Redis
) -> None:
    base = f"{app.prefix}:mail:metrics:completed"
    await queue.add_many([("double", {"n": n}) for n in range(3)])
    async with at_work(app, metrics_minutes=60):
        await eventually(lambda: node.has(completed=3))
    seconds, _ = await redis.time()
    await redis.hset(base, "prevTS", (seconds - 120) * 1_000)  # two minutes ago
    await queue.add("double", {"n": 1})
    await queue.add("fail", {"reason": "no"}, attempts=1)
    await node.work(metrics={"maxDataPoints": 60})
    await eventually(lambda: node.has(completed=4, failed=1))
    await node("stopWorking")

    theirs = await node("metrics", kind="completed")
    ours = await app.inspector.count_minutes(queue.ref, JobState.COMPLETED)

    assert theirs["meta"]["count"] in (4, "4")
    assert ours.total == 4
    assert [int(n) for n in theirs["data"]] == [0, 3]
    assert ours.counts[-3:] == (1, 0, 3)
    assert (await app.inspector.count_minutes(queue.ref, JobState.FAILED)).total == 1


async def test_both_sides_count_priorities_alike(node: NodeQueue, app: App, queue: Queue) -> None:
    for priority in (0, 0, 1, 7, 7, 7):
        await node.add("echo", priority=priority)
        await queue.add("echo", priority=priority)

    theirs = await node("countsPerPriority", priorities=[0, 1, 2, 7])
    ours = await app.inspector.count_priority(queue.ref, [0, 1, 2, 7])

    assert {int(priority): n for priority, n in theirs.items()} == ours == {0: 4, 1: 2, 2: 0, 7: 6}


async def test_both_sides_give_every_state_we_make_the_same_name(
    node: NodeQueue, app: App, queue: Queue
) -> None:
    completed = await queue.add("echo")
    failed = await queue.add("fail", {"reason": "no"}, attempts=1)
    again = await queue.add("fail", {"reason": "no"}, attempts=2, backoff="1h")
    async with at_work(app):
        await eventually(lambda: node.has(completed=1, failed=1, delayed=1))
    active = await queue.add("echo")
    await HandWorker(queue).take_one()
    flow = await queue.add_flow(
        FlowNode(queue="mail", name="look", children=[FlowNode(queue="mail", name="echo")])
    )
    made = {
        completed: "completed", failed: "failed", again: "delayed", active: "active",
        flow.job: "waiting-children", flow.children[0].job: "waiting",
        await queue.add("echo"): "waiting",
        await queue.add("echo", priority=1): "prioritized",
        await queue.add("echo", delay="1h"): "delayed",
    }  # fmt: skip

    for handle, state in made.items():
        assert (await node("job", id=handle.id))["state"] == state
        assert (await handle.state()).value == state.replace("-", "_")
    await queue.pause()
    for handle, state in made.items():
        assert (await node("job", id=handle.id))["state"] == state


# --- what operators change ------------------------------------------------------------


@pytest.mark.parametrize("changer", SIDES)
async def test_a_priority_changed_by_one_side_is_the_others(
    node: NodeQueue, queue: Queue, changer: str
) -> None:
    handles = [await queue.add("echo"), await queue.add("echo", priority=9)]

    for handle, priority in zip(handles, (4, 0), strict=True):
        if changer == "us":
            assert await queue.change_priority(handle.id, priority)
        else:
            await node("changePriority", id=handle.id, priority=priority)

    shown = [await node("job", id=handle.id) for handle in handles]
    jobs = [await handle.job() for handle in handles]
    assert [job["state"] for job in shown] == ["prioritized", "waiting"]
    assert [job["priority"] for job in shown] == [job.priority for job in jobs if job] == [4, 0]


@pytest.mark.parametrize("changer", SIDES)
async def test_a_delay_changed_by_one_side_is_the_others(
    node: NodeQueue, app: App, queue: Queue, changer: str
) -> None:
    handle = await queue.add("double", {"n": 2}, delay="1h")

    if changer == "us":
        assert await queue.change_delay(handle.id, 0.05)
    else:
        await node("changeDelay", id=handle.id, delay=50)

    job = await finished("node" if changer == "us" else "us", node, app, handle.id)
    assert (job["returnvalue"], job["delay"]) == (4, 0)


@pytest.mark.parametrize("promoter", SIDES)
async def test_a_job_promoted_by_one_side_is_run_by_the_other(
    node: NodeQueue, app: App, queue: Queue, promoter: str
) -> None:
    handle = await queue.add("double", {"n": 2}, delay="1h", priority=3)

    await (queue.promote([handle.id]) if promoter == "us" else node("promote", id=handle.id))

    assert (await node("job", id=handle.id))["state"] == "prioritized"
    job = await finished("node" if promoter == "us" else "us", node, app, handle.id)
    assert job["returnvalue"] == 4


@pytest.mark.parametrize("cleaner", SIDES)
async def test_what_one_side_cleans_and_drains_is_gone_for_the_other(
    node: NodeQueue, app: App, queue: Queue, cleaner: str
) -> None:
    await queue.add_many([("double", {"n": n}) for n in range(3)])
    await queue.add("fail", {"reason": "no"}, attempts=1)
    async with at_work(app):
        await eventually(lambda: node.has(completed=3, failed=1))
    await node.add("echo", delay=3_600_000)
    await queue.add("echo", priority=1)
    await node.add("echo")

    if cleaner == "us":
        gone = await queue.clean(JobState.COMPLETED)
        await queue.drain(delayed=True)
    else:
        gone = len(await node("clean", state="completed"))
        await node("drain", delayed=True)

    assert gone == 3
    assert {state: n for state, n in (await node("counts")).items() if n} == {"failed": 1}
    (figures,) = await app.inspector.sample([queue.ref])
    assert {state: n for state, n in figures.counts.items() if n} == {JobState.FAILED: 1}
