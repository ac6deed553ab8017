from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.conftest import eventually, running
from tests.factories import HandWorker
from tickbird import App, Cron, Every, InvalidOption, JobState, Queue, Worker


async def run_next(queue: Queue, worker: HandWorker, due_ms: int) -> Any:
    """Take the iteration due then, continue its schedule, complete it."""
    (job,) = await worker.take(1, now_ms=due_ms)
    await queue.schedules.iterate(job)
    await worker.end(job)
    return job


async def pending(queue: Queue) -> list[str]:
    ids = []
    for state in (JobState.WAITING, JobState.DELAYED, JobState.PRIORITIZED):
        ids += [job.id for job in await queue._inspector.list_jobs(queue.ref, state)]
    return ids


async def test_an_interval_begins_at_once_and_keeps_its_rhythm(queue: Queue) -> None:
    made = await queue.schedules.upsert("tick", "tick-job", {"k": 1}, when=Every("2s"))
    worker = HandWorker(queue)
    first_ms = made.next_run_at_ms
    assert first_ms is not None
    assert await pending(queue) == [f"repeat:tick:{first_ms}"]

    job = await run_next(queue, worker, first_ms)

    found = await queue.schedules.get("tick")
    assert found is not None
    assert job.data == b'{"k":1}'
    assert (found.next_run_at_ms, found.iterations) == (first_ms + 2_000, 2)
    assert await pending(queue) == [f"repeat:tick:{first_ms + 2_000}"]


async def test_an_upsert_replaces_the_pending_iteration(queue: Queue) -> None:
    await queue.schedules.upsert("tick", "a", 1, when=Every("1h"))
    await run_next(queue, HandWorker(queue), (await _due(queue, "tick")))

    changed = await queue.schedules.upsert("tick", "b", 2, when=Every("2h"))

    (left,) = await pending(queue)
    job = await queue.job(left)
    assert job is not None
    assert (job.name, job.data) == ("b", "2")
    assert left == f"repeat:tick:{changed.next_run_at_ms}"
    assert changed.iterations == 2


async def test_an_unchanged_interval_keeps_its_due_time(queue: Queue) -> None:
    await queue.schedules.upsert("tick", "a", when=Every("1h"))
    await run_next(queue, HandWorker(queue), (await _due(queue, "tick")))
    before = await _due(queue, "tick")

    after = await queue.schedules.upsert("tick", "a", {"new": True}, when=Every("1h"))

    assert after.next_run_at_ms == before
    assert len(await pending(queue)) == 1


async def test_a_cron_schedule_fires_at_its_times_in_its_zone(queue: Queue) -> None:
    made = await queue.schedules.upsert("night", "n", when=Cron("0 30 3 * * *", tz="Europe/Rome"))
    assert made.next_run_at_ms is not None
    due = datetime.fromtimestamp(made.next_run_at_ms / 1_000, UTC)

    await run_next(queue, HandWorker(queue), made.next_run_at_ms)

    assert (due.hour, due.minute) in {(1, 30), (2, 30)}
    next_ms = await _due(queue, "night")
    assert 82_800_000 <= next_ms - made.next_run_at_ms <= 90_000_000
    found = await queue.schedules.get("night")
    assert found is not None
    assert found.when == Cron("0 30 3 * * *", tz="Europe/Rome")


async def test_a_limit_ends_a_schedule_and_a_start_begins_it(queue: Queue) -> None:
    start = datetime.now(UTC) + timedelta(hours=1)
    made = await queue.schedules.upsert("s", "x", when=Every("1h"), limit=2, start=start)
    assert made.next_run_at_ms is not None
    worker = HandWorker(queue)

    await run_next(queue, worker, made.next_run_at_ms)
    second_ms = await _due(queue, "s")
    await run_next(queue, worker, second_ms)

    assert made.next_run_at_ms == int(start.timestamp() * 1_000)
    assert await pending(queue) == []
    assert await _due(queue, "s") == second_ms


async def test_a_start_is_taken_to_the_millisecond(queue: Queue) -> None:
    start_ms = 2_170_155_018_483  # as a float of seconds it is a little less
    start = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=start_ms)

    made = await queue.schedules.upsert("s", "x", when=Every("1h"), start=start)

    assert made.next_run_at_ms == made.start_ms == start_ms


async def test_a_replaced_or_repeated_iteration_does_not_fork(queue: Queue) -> None:
    await queue.schedules.upsert("tick", "x", when=Every("1h"))
    (job,) = await HandWorker(queue).take(1)

    await queue.schedules.iterate(job)
    await queue.schedules.iterate(job)

    assert len(await pending(queue)) == 1


async def test_removing_ends_it(queue: Queue) -> None:
    await queue.schedules.upsert("tick", "x", when=Every("1h"))
    (job,) = await HandWorker(queue).take(1)
    await queue.schedules.iterate(job)

    assert await queue.schedules.remove("tick")
    assert not await queue.schedules.remove("tick")
    assert await pending(queue) == []
    await queue.schedules.iterate(job)
    assert await pending(queue) == []


async def test_the_run_a_schedule_waits_for_is_not_cancelled_alone(queue: Queue) -> None:
    made = await queue.schedules.upsert("tick", "x", when=Every("1h"))

    assert not await queue.cancel(f"repeat:tick:{made.next_run_at_ms}")

    assert await pending(queue) == [f"repeat:tick:{made.next_run_at_ms}"]


async def test_schedules_are_listed_by_their_next_time(queue: Queue) -> None:
    soon = datetime.now(UTC) + timedelta(minutes=1)
    await queue.schedules.upsert("late", "x", when=Every("2h"), start=soon + timedelta(hours=2))
    await queue.schedules.upsert("early", "x", when=Every("1h"), start=soon)

    assert [schedule.id for schedule in await queue.schedules.list()] == ["early", "late"]


async def test_a_legacy_record_goes_on_with_its_jobs_own_data(queue: Queue) -> None:
    client, keys = queue._connection.reader, queue._keys
    due_ms = 1_795_451_640_000
    await client.hset(keys.of("repeat:5f2d"), mapping={"name": "rep", "every": 60_000})
    await client.zadd(keys.of("repeat"), {"5f2d": due_ms})
    await client.hset(
        keys.job(f"repeat:5f2d:{due_ms}"),
        mapping={"name": "rep", "data": '{"a":1}', "timestamp": 1, "delay": 0, "priority": 0,
                 "rjk": "5f2d", "opts": '{"repeat":{"every":60000,"count":1},"attempts":0}'},
    )  # fmt: skip
    await client.lpush(keys.of("wait"), f"repeat:5f2d:{due_ms}")
    (job,) = await HandWorker(queue).take(1)

    await queue.schedules.iterate(job)

    (next_id,) = await pending(queue)
    following = await queue.job(next_id)
    assert following is not None
    assert following.data == '{"a":1}'
    assert next_id.startswith("repeat:5f2d:")


@pytest.mark.parametrize(
    ("how", "named"),
    [
        ({"when": "* * * * *"}, "when must be"),
        ({"when": Every("1h"), "limit": 0}, "limit"),
        ({"when": Every("1h"), "start": datetime(2030, 1, 1)}, "time zone"),  # noqa: DTZ001
        ({"when": Every("1h"), "delay": "1s"}, "'delay' cannot be set"),
        ({"when": Every("1h"), "retries": 3}, "unknown option"),
    ],
)
async def test_a_wrong_schedule_is_refused(queue: Queue, how: Any, named: str) -> None:
    with pytest.raises(InvalidOption, match=named):
        await queue.schedules.upsert("s", "x", **how)
    with pytest.raises(InvalidOption, match="job_id"):
        await queue.schedules.upsert("a:b", "x", when=Every("1h"))
    with pytest.raises(InvalidOption, match="at least 100 ms"):
        Every("50ms")

    assert await queue._connection.reader.keys(f"{queue.ref.prefix}:*") == []


async def test_a_tasks_own_schedule_is_kept_by_its_workers(app: App) -> None:
    runs: list[int] = []

    @app.task(queue="mail", schedule=Every("200ms"), retry=2)
    async def beat() -> None:
        runs.append(1)

    async with running(Worker(app, queues=["mail"])), running(Worker(app, queues=["mail"])):

        async def three() -> bool:
            return len(runs) >= 3

        await eventually(three)
    schedules = app.queue("mail").schedules
    before = await schedules.get("beat")
    await app.upsert_schedules()
    after = await schedules.get("beat")

    assert before is not None
    assert after is not None
    assert after.next_run_at_ms == before.next_run_at_ms
    assert after.iterations >= 3


async def _due(queue: Queue, schedule_id: str) -> int:
    found = await queue.schedules.get(schedule_id)
    assert found is not None
    assert found.next_run_at_ms is not None
    return found.next_run_at_ms
