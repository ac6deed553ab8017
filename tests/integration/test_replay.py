from __future__ import annotations

import asyncio

import pytest

from tests.factories import HandWorker
from tickbird import InvalidOption, JobState, Queue


async def fail_one(queue: Queue, **options: int) -> str:
    handle = await queue.add("x", {"n": 1}, **options)
    worker = HandWorker(queue)
    await worker.end(await worker.take_one(), "failed", text="boom", stacktrace='["boom"]')
    return handle.id


async def test_a_replayed_job_runs_again_as_new(queue: Queue) -> None:
    job_id = await fail_one(queue)

    assert await queue.replay([job_id]) == [True]

    job = await queue._inspector.get_job(queue.ref, job_id)
    assert job is not None
    assert (job.state, job.attempts_made, job.attempts_started, job.error) == (
        JobState.WAITING,
        0,
        0,
        None,
    )
    assert (job.replays, job.stacktraces) == (1, ("boom",))


async def test_two_replays_at_once_make_one(queue: Queue) -> None:
    job_id = await fail_one(queue)

    results = await asyncio.gather(*(queue.replay([job_id]) for _ in range(20)))

    assert sorted(result[0] for result in results) == [False] * 19 + [True]
    assert len(await queue._inspector.list_jobs(queue.ref, JobState.WAITING)) == 1


async def test_a_replayed_job_keeps_its_priority(queue: Queue) -> None:
    job_id = await fail_one(queue, priority=7)

    await queue.replay([job_id])

    assert await queue._inspector.get_state(queue.ref, job_id) is JobState.PRIORITIZED


async def test_a_completed_job_can_be_replayed(queue: Queue) -> None:
    handle = await queue.add("x")
    worker = HandWorker(queue)
    await worker.end(await worker.take_one())

    assert await queue.replay([handle.id], state=JobState.COMPLETED) == [True]
    assert await handle.state() is JobState.WAITING


async def test_what_is_not_there_is_told_apart(queue: Queue) -> None:
    job_id = await fail_one(queue)

    assert await queue.replay(["missing", job_id, job_id]) == [False, True, False]
    assert await queue.replay([]) == []
    with pytest.raises(InvalidOption, match="only failed or completed"):
        await queue.replay([job_id], state=JobState.ACTIVE)
    with pytest.raises(InvalidOption, match="at most 500"):
        await queue.replay(["x"] * 501)
