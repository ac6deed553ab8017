"""Failures, retries and replays of one side as the other sees and continues them."""

from __future__ import annotations

import json
from typing import Any

import pytest
import redis.asyncio as aioredis

from tests.conftest import eventually
from tests.interop.bullmq import NodeQueue
from tests.interop.tasks import at_work
from tickbird import App, Inspector, JobState, Queue

pytestmark = pytest.mark.interop


async def test_node_sees_why_and_how_often_a_job_failed_with_us(node: NodeQueue, app: App) -> None:
    backoff = {"type": "exponential", "delay": 20, "jitter": 0.5}
    job_id = await node.add("fail", {"reason": "card declined"}, attempts=3, backoff=backoff)

    async with at_work(app):
        outcome = await node("outcome", id=job_id)

    job = await node("job", id=job_id)
    assert outcome == {"error": "card declined"}
    assert (job["isFailed"], job["attemptsMade"], job["attemptsStarted"]) == (True, 3, 3)
    assert job["failedReason"] == "card declined"
    assert [trace.splitlines()[-1] for trace in job["stacktrace"]] == [
        "ValueError: card declined"
    ] * 3


async def test_we_see_why_and_how_often_a_job_failed_in_node(node: NodeQueue, queue: Queue) -> None:
    handle = await queue.add("fail", {"reason": "card declined"}, attempts=2, backoff=0)

    await node.work()
    await node.job_in("failed", handle.id)

    job = await handle.job()
    assert job is not None
    assert (job.attempts_made, job.error) == (2, "card declined")
    assert [trace.splitlines()[0] for trace in job.stacktraces] == ["Error: card declined"] * 2


async def test_stack_traces_of_both_sides_make_one_history(
    node: NodeQueue, app: App, queue: Queue
) -> None:
    handle = await queue.add("fail", {"reason": "no"}, attempts=2, backoff="1h")
    await node.work()
    await node.job_in("delayed", handle.id)
    await node("stopWorking")

    await node("promote", id=handle.id)
    async with at_work(app):
        job = await node.job_in("failed", handle.id)

    assert [trace.splitlines()[0] for trace in job["stacktrace"]] == [
        "Error: no",
        "Traceback (most recent call last):",
    ]
    assert job["attemptsMade"] == 2


async def test_a_job_that_failed_here_is_run_again_when_node_retries_it(
    node: NodeQueue, app: App
) -> None:
    job_id = await node.add("flaky", {"who": "a"})

    async with at_work(app):
        await node.job_in("failed", job_id)
        await node("retry", id=job_id)
        job = await node.job_in("completed", job_id)

    assert (job["returnvalue"], job["attemptsMade"]) == ("well", 2)
    assert "failedReason" not in job


async def test_all_that_failed_here_is_run_again_when_node_retries_all(
    node: NodeQueue, app: App
) -> None:
    ids = [await node.add("flaky", {"who": str(n)}, priority=n) for n in range(4)]

    async with at_work(app):
        for job_id in ids:
            await node.job_in("failed", job_id)
        await node("retryAll")
        jobs = [await node.job_in("completed", job_id) for job_id in ids]

    assert [job["returnvalue"] for job in jobs] == ["well"] * 4


async def test_a_job_that_failed_in_node_is_run_again_there_when_we_replay_it(
    node: NodeQueue, queue: Queue
) -> None:
    handle = await queue.add("flaky", {"who": "a"}, attempts=1)
    await node.work()
    await node.job_in("failed", handle.id)

    assert await queue.replay([handle.id]) == [True]

    job = await node.job_in("completed", handle.id)
    assert (job["returnvalue"], job["attemptsMade"], job["attemptsStarted"]) == ("well", 1, 1)
    assert len(job["stacktrace"]) == 1
    assert await queue.replay([handle.id]) == [False]


async def test_a_replayed_job_has_all_its_attempts_in_node(node: NodeQueue, queue: Queue) -> None:
    handle = await queue.add("fail", {"reason": "no"}, attempts=2, backoff=0)
    await node.work()
    await node.job_in("failed", handle.id)
    await queue.replay([handle.id])

    async def failed_again() -> Any:
        job = await node("job", id=handle.id)
        return job if len(job["stacktrace"]) == 4 and job["isFailed"] else None

    assert await eventually(failed_again)
    assert (await node("job", id=handle.id))["attemptsMade"] == 2


async def test_a_completed_job_of_node_can_be_replayed_and_run_by_us(
    node: NodeQueue, app: App, queue: Queue
) -> None:
    await node.work()
    job_id = await node.add("double", {"n": 3})
    await node.job_in("completed", job_id)
    await node("stopWorking")

    await queue.replay([job_id], state=JobState.COMPLETED)
    assert (await node("job", id=job_id))["state"] == "waiting"
    async with at_work(app):
        assert (await node("outcome", id=job_id)) == {"value": 6}


# --- what Node can add and we cannot run ------------------------------------------


async def test_a_job_whose_name_we_do_not_know_fails_and_says_so(node: NodeQueue, app: App) -> None:
    job_id = await node.add("nobody", {})

    async with at_work(app):
        outcome = await node("outcome", id=job_id)

    assert outcome["error"].startswith("no task 'nobody' here; this worker knows: count, double")


@pytest.mark.parametrize(
    ("data", "kind"),
    [([1, 2], "list"), ("text", "str"), (7, "int"), (True, "bool"), (None, "NoneType")],
)
async def test_data_that_is_no_object_fails_and_says_so(
    node: NodeQueue, app: App, data: Any, kind: str
) -> None:
    job_id = (await node("add", name="double", data=data, opts={"attempts": 5}))["id"]

    async with at_work(app):
        outcome = await node("outcome", id=job_id)

    assert outcome == {"error": f"the job's data must be a JSON object of arguments, not {kind}"}
    assert (await node("job", id=job_id))["attemptsMade"] == 1


async def test_data_that_does_not_fit_the_task_fails_and_says_so(node: NodeQueue, app: App) -> None:
    job_id = await node.add("double", {"n": "seven"}, attempts=5)

    async with at_work(app):
        outcome = await node("outcome", id=job_id)

    assert outcome["error"].startswith("the job's data does not fit the task: ")
    assert (await node("job", id=job_id))["attemptsMade"] == 1


ODD_IDS = ["two words", "ünï/✓", "50%25", "a\nb", "*?[x]", "{tag}", "'\"\\", "x" * 300, " "]


async def test_odd_job_ids_of_node_survive_list_run_and_replay(
    node: NodeQueue, app: App, queue: Queue, redis_url: str
) -> None:
    for n, odd in enumerate(ODD_IDS):
        assert await node.add("flaky", {"who": str(n)}, jobId=odd) == odd
    inspector = Inspector(redis_url)

    async def listed(state: JobState) -> set[str]:
        return {job.id for job in await inspector.list_jobs(queue.ref, state, limit=200)}

    waiting = await listed(JobState.WAITING)
    async with at_work(app):
        for odd in ODD_IDS:
            await node.job_in("failed", odd)
        failed = await listed(JobState.FAILED)
        assert await queue.replay(ODD_IDS) == [True] * len(ODD_IDS)
        for odd in ODD_IDS:
            await node.job_in("completed", odd)
    jobs = [await inspector.get_job(queue.ref, odd) for odd in ODD_IDS]
    await inspector.aclose()

    assert waiting == failed == set(ODD_IDS)
    assert [job.id for job in jobs if job and job.result == '"well"'] == ODD_IDS


async def test_an_id_that_is_not_text_at_all_survives_list_run_and_replay(
    node: NodeQueue, app: App, queue: Queue, redis: aioredis.Redis, redis_url: str
) -> None:
    raw = b"\xff\x00 \xfe"
    base = f"{queue.ref.prefix}:mail:"
    await redis.hset(
        base.encode() + raw,
        mapping={
            "name": "flaky", "data": json.dumps({"who": "raw"}), "opts": "{}", "timestamp": 1,
            "delay": 0, "priority": 0,
        },
    )  # fmt: skip
    await redis.lpush(f"{base}wait", raw)
    inspector = Inspector(redis_url)

    async def listed(state: JobState) -> list[str]:
        return [job.id for job in await inspector.list_jobs(queue.ref, state)]

    (odd,) = await listed(JobState.WAITING)
    async with at_work(app):
        await eventually(lambda: listed(JobState.FAILED))
        assert await queue.replay([odd]) == [True]
        await eventually(lambda: listed(JobState.COMPLETED))
    await inspector.aclose()

    assert odd.encode("utf-8", "surrogateescape") == raw
    assert (await node("counts"))["completed"] == 1
