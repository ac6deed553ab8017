from __future__ import annotations

import pytest

from tests.conftest import eventually, running
from tests.factories import HandWorker
from tickbird import App, Inspector, InvalidOption, JobState, Queue, Worker
from tickbird.storage.keys import QueueKeys


@pytest.fixture
async def inspector(queue: Queue) -> Inspector:
    return queue._inspector


async def ids(inspector: Inspector, queue: Queue, state: JobState, **page: int) -> list[str]:
    """A page in both orders, which must be each other's reverse where it is whole."""
    forwards = await inspector.list_ids(queue.ref, state, newest_first=False, **page)
    if not page:
        backwards = await inspector.list_ids(queue.ref, state, newest_first=True)
        assert backwards == forwards[::-1]
    return forwards


async def test_waiting_jobs_are_listed_in_both_orders(inspector: Inspector, queue: Queue) -> None:
    added = [(await queue.add("x", n)).id for n in range(5)]

    assert await ids(inspector, queue, JobState.WAITING) == added
    assert await inspector.list_ids(queue.ref, JobState.WAITING) == added
    assert await ids(inspector, queue, JobState.WAITING, offset=1, limit=2) == added[1:3]
    page = await inspector.list_jobs(
        queue.ref, JobState.WAITING, newest_first=True, offset=1, limit=2
    )
    assert [job.id for job in page] == [added[3], added[2]]


async def test_what_old_clients_parked_comes_after_what_waits(
    inspector: Inspector, queue: Queue
) -> None:
    keys, reader = QueueKeys(queue.ref), queue._connection.reader
    await reader.lpush(keys.of("wait"), "a", "b", "c")
    await reader.lpush(keys.of("paused"), "d", "e", "0:marker")

    assert await ids(inspector, queue, JobState.WAITING) == ["a", "b", "c", "d", "e"]
    for offset in range(6):
        for limit in range(1, 6):
            forwards = ["a", "b", "c", "d", "e", None][offset : offset + limit]
            found = await ids(inspector, queue, JobState.WAITING, offset=offset, limit=limit)
            assert found == [job_id for job_id in forwards if job_id]


async def test_running_and_finished_jobs_are_listed_in_both_orders(
    inspector: Inspector, queue: Queue
) -> None:
    added = [(await queue.add("x", n)).id for n in range(6)]
    worker = HandWorker(queue)
    jobs = await worker.take(6)
    for job in jobs[:3]:
        await worker.end(job)
    keys, reader = QueueKeys(queue.ref), queue._connection.reader
    await reader.zadd(keys.of("completed"), {job_id: n for n, job_id in enumerate(added[:3])})

    assert await ids(inspector, queue, JobState.ACTIVE) == added[3:]
    assert await ids(inspector, queue, JobState.COMPLETED) == added[:3]
    assert await inspector.list_ids(queue.ref, JobState.COMPLETED) == added[2::-1]
    assert await inspector.list_ids(queue.ref, JobState.FAILED) == []


async def test_delayed_jobs_are_listed_by_when_they_are_due(
    inspector: Inspector, queue: Queue
) -> None:
    late = await queue.add("x", delay="2h")
    early = await queue.add("x", delay="1h")

    assert await ids(inspector, queue, JobState.DELAYED) == [early.id, late.id]
    (newest, _) = await inspector.list_jobs(queue.ref, JobState.DELAYED, newest_first=True)
    assert newest.id == late.id
    assert newest.due_at_ms is not None


async def test_jobs_are_counted_by_priority(inspector: Inspector, queue: Queue) -> None:
    for priority in (0, 0, 1, 5, 5, 5, 2_097_151):
        await queue.add("x", priority=priority)

    assert await inspector.count_priority(queue.ref, [0, 1, 2, 5, 2_097_151, 5]) == {
        0: 2, 1: 1, 2: 0, 5: 3, 2_097_151: 1,
    }  # fmt: skip
    assert await inspector.count_priority(queue.ref, []) == {}


async def test_log_lines_are_read_from_both_ends(inspector: Inspector, queue: Queue) -> None:
    handle = await queue.add("x")
    key = QueueKeys(queue.ref).logs(handle.id)
    await queue._connection.reader.rpush(key, *(f"line {n}" for n in range(10)))

    page = await inspector.list_logs(queue.ref, handle.id, offset=2, limit=3)
    assert (page.lines, page.total) == (("line 2", "line 3", "line 4"), 10)
    page = await inspector.list_logs(queue.ref, handle.id, offset=2, limit=3, newest_first=True)
    assert page.lines == ("line 7", "line 6", "line 5")
    page = await inspector.list_logs(queue.ref, handle.id, offset=8, limit=9, newest_first=True)
    assert page.lines == ("line 1", "line 0")
    assert (await inspector.list_logs(queue.ref, "missing")).total == 0


async def test_our_workers_are_not_taken_for_others(
    app: App, inspector: Inspector, queue_name: str
) -> None:
    queue = app.queue(queue_name)
    await queue.add("x")
    reader = queue._connection.reader
    async with reader.client() as theirs:
        await theirs.client_setname(QueueKeys(queue.ref).client_name("other"))
        async with running(Worker(app, queues=(queue_name,))):

            async def is_seen() -> bool:
                return bool((await inspector.list_workers(queue.ref)).ours)

            await eventually(is_seen)
            found = await inspector.list_workers(queue.ref)

        assert len(found.ours) == 1
        assert [worker.name for worker in found.foreign] == ["other"]
        assert found.foreign[0].connected_s >= 0


async def test_counts_by_minute_are_padded_up_to_now(inspector: Inspector, queue: Queue) -> None:
    keys, reader = QueueKeys(queue.ref), queue._connection.reader
    seconds, _ = await reader.time()
    key = keys.of("metrics:completed")
    counted_ms = (seconds // 60 - 3) * 60_000 + 5
    await reader.hset(key, mapping={"count": 9, "prevTS": counted_ms, "prevCount": 7})
    await reader.rpush(f"{key}:data", 4, 0, 3)

    found = await inspector.count_minutes(queue.ref, JobState.COMPLETED)

    idle = found.now_ms // 60_000 - counted_ms // 60_000
    assert (found.total, found.counts) == (9, (*[0] * idle, 2, 4, 0, 3))
    short = await inspector.count_minutes(queue.ref, JobState.COMPLETED, minutes=2)
    assert short.counts == (0, 0)
    nothing = await inspector.count_minutes(queue.ref, JobState.FAILED)
    assert (nothing.total, nothing.counts) == (0, ())
    with pytest.raises(InvalidOption, match="completed and failed"):
        await inspector.count_minutes(queue.ref, JobState.ACTIVE)
