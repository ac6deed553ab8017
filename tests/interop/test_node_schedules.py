"""Schedules of one side that both keep going; whoever takes an iteration adds the next."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
import redis.asyncio as aioredis

from tests.conftest import eventually
from tests.interop.bullmq import NodeProcess, NodeQueue
from tests.interop.tasks import at_work
from tickbird import App, Cron, Every, Queue, Schedule

pytestmark = pytest.mark.interop

SIDES = ["node", "us"]
HOUR_MS = 3_600_000


def other(side: str) -> str:
    return "us" if side == "node" else "node"


async def upsert(
    side: str, node: NodeQueue, queue: Queue, when: Every | Cron, data: Any = None, **more: Any
) -> None:
    """Make the schedule `s` of `echo` jobs from either side, with the same meaning."""
    data = {} if data is None else data
    if side == "us":
        await queue.schedules.upsert("s", "echo", data, when=when, **more)
        return
    repeat: dict[str, Any] = {
        {"start": "startDate", "end": "endDate"}.get(name, name): (
            int(value.timestamp() * 1_000) if isinstance(value, datetime) else value
        )
        for name, value in more.items()
    }
    if isinstance(when, Every):
        repeat["every"] = when.interval_ms
    else:
        repeat |= {"pattern": when.pattern, "tz": when.tz}
    await node("schedule", id="s", repeat=repeat, template={"name": "echo", "data": data})


async def in_turns(node: NodeQueue, app: App, *, until: tuple[int, ...]) -> list[str]:
    """Work on the queue, we first, until so many jobs are completed at each turn's end.

    Gives who has run each job, in the order of their due times.
    """
    runners: dict[str, str] = {}
    for turn, done in enumerate(until):
        if turn % 2 == 0:
            async with at_work(app):
                await eventually(partial(_at_least, node, done))
        else:
            await node.work()
            await eventually(partial(_at_least, node, done))
            await node("stopWorking")
        for job in await node("jobs", types=["completed"]):
            runners.setdefault(job["id"], "node" if turn % 2 else "us")
    return [runners[job_id] for job_id in sorted(runners, key=_due_ms)]


async def _at_least(node: NodeQueue, done: int) -> bool:
    return bool((await node("counts"))["completed"] >= done)


def _due_ms(job_id: str) -> int:
    return int(job_id.rpartition(":")[2])


async def iterations(node: NodeQueue) -> list[dict[str, Any]]:
    jobs = await node("jobs", types=["completed"])
    return sorted(jobs, key=lambda job: _due_ms(job["id"]))


async def known_to_both(node: NodeQueue, queue: Queue) -> tuple[Schedule, dict[str, Any]]:
    (ours,) = await queue.schedules.list()
    (theirs,) = await node("schedules")
    assert ours.id == theirs["key"]
    assert ours.name == theirs["name"]
    assert ours.next_run_at_ms == theirs["next"]
    return ours, theirs


@pytest.mark.parametrize("maker", SIDES)
async def test_an_interval_is_kept_going_by_both_in_turns_up_to_its_limit(
    node: NodeQueue, app: App, queue: Queue, maker: str
) -> None:
    await upsert(maker, node, queue, Every(0.1), {"n": 1}, limit=6)

    runners = await in_turns(node, app, until=(2, 3, 5, 6))

    jobs = await iterations(node)
    due = [_due_ms(job["id"]) for job in jobs]
    assert set(runners) == {"us", "node"}
    assert [job["opts"]["repeat"]["count"] for job in jobs] == [1, 2, 3, 4, 5, 6]
    assert [job["returnvalue"] for job in jobs] == [{"n": 1}] * 6
    assert all((later - earlier) % 100 == 0 for earlier, later in pairwise(due))
    assert all(job["processedOn"] >= at for job, at in zip(jobs, due, strict=True))
    assert {state for state, n in (await node("counts")).items() if n} == {"completed"}
    schedule = await queue.schedules.get("s")
    assert schedule is not None
    assert schedule.iterations == 6


@pytest.mark.parametrize("maker", SIDES)
async def test_a_cron_schedule_is_kept_going_by_both_in_turns(
    node: NodeQueue, app: App, queue: Queue, maker: str
) -> None:
    await upsert(maker, node, queue, Cron("* * * * * *", "Asia/Kathmandu"), {"n": 1})

    runners = await in_turns(node, app, until=(1, 2, 3))

    jobs = (await iterations(node))[:3]
    due = [_due_ms(job["id"]) for job in jobs]
    assert set(runners) == {"us", "node"}
    assert [job["opts"]["repeat"]["count"] for job in jobs] == [1, 2, 3]
    assert [job["returnvalue"] for job in jobs] == [{"n": 1}] * 3
    assert all(at % 1_000 == 0 for at in due)
    assert len(set(due)) == 3
    assert all(job["opts"]["repeat"]["tz"] == "Asia/Kathmandu" for job in jobs)
    schedule, shown = await known_to_both(node, queue)
    assert schedule.iterations == shown["iterationCount"] == max(3, len(await iterations(node))) + 1


@pytest.mark.parametrize("maker", SIDES)
async def test_a_schedule_ends_at_its_end_whoever_runs_it(
    node: NodeQueue, app: App, queue: Queue, maker: str
) -> None:
    end = datetime.now(UTC) + timedelta(milliseconds=350)
    await upsert(maker, node, queue, Every(0.1), end=end)

    async def is_over() -> bool:
        counts = await node("counts")
        idle = not any(n for state, n in counts.items() if state != "completed")
        return idle and counts["completed"] > 0

    if maker == "node":
        async with at_work(app):
            await eventually(is_over)
    else:
        await node.work()
        await eventually(is_over)

    last_ms = _due_ms((await iterations(node))[-1]["id"])
    end_ms = int(end.timestamp() * 1_000)
    assert end_ms - 200 <= last_ms <= end_ms + 200


@pytest.mark.parametrize(
    ("pattern", "tz"),
    [
        ("0 30 3 * * *", "Europe/Rome"),
        ("30 2 L * *", "America/New_York"),
        ("0 9 * * MON#1", "Asia/Tokyo"),
        ("*/7 8-18 1,15 * *", "UTC"),
    ],
)
async def test_both_sides_make_the_same_of_a_cron_pattern(
    node: NodeQueue, queue: Queue, pattern: str, tz: str
) -> None:
    await upsert("node", node, queue, Cron(pattern, tz))
    theirs, _ = await known_to_both(node, queue)

    await upsert("us", node, queue, Cron(pattern, tz))

    ours, shown = await known_to_both(node, queue)
    assert replace(ours, options=theirs.options) == theirs
    assert (shown["pattern"], shown["tz"]) == (pattern, tz)
    assert (await node("counts"))["delayed"] == 1


@pytest.mark.parametrize("changer", SIDES)
async def test_a_schedule_is_changed_by_the_other_side(
    node: NodeQueue, queue: Queue, changer: str
) -> None:
    start = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=1)
    await upsert(other(changer), node, queue, Every("1h"), {"n": 1}, start=start)
    before, _ = await known_to_both(node, queue)

    sooner = start - timedelta(minutes=30)
    await upsert(changer, node, queue, Every("2h"), {"n": 2}, start=sooner, limit=9)

    schedule, shown = await known_to_both(node, queue)
    (pending,) = await node("jobs", types=["delayed"])
    assert before.next_run_at_ms == int(start.timestamp() * 1_000)
    assert schedule.when == Every(7_200)
    assert (schedule.limit, json.loads(schedule.data)) == (9, {"n": 2})
    assert (shown["every"], shown["limit"], shown["template"]["data"]) == (7_200_000, 9, {"n": 2})
    assert schedule.next_run_at_ms == int(sooner.timestamp() * 1_000) == _due_ms(pending["id"])
    assert pending["data"] == {"n": 2}


@pytest.mark.parametrize("changer", SIDES)
async def test_an_unchanged_interval_keeps_its_rhythm_when_the_other_side_upserts_it(
    node: NodeQueue, app: App, queue: Queue, changer: str
) -> None:
    await upsert(other(changer), node, queue, Every("1h"), {"n": 1})
    async with at_work(app):
        await eventually(lambda: node.has(completed=1))
    before, _ = await known_to_both(node, queue)

    await upsert(changer, node, queue, Every("1h"), {"n": 2})

    after, _ = await known_to_both(node, queue)
    (pending,) = await node("jobs", types=["delayed"])
    assert after.next_run_at_ms == before.next_run_at_ms
    assert pending["data"] == {"n": 2}


@pytest.mark.parametrize("runner", SIDES)
async def test_an_iteration_that_is_tried_again_makes_no_second_one(
    node: NodeQueue, app: App, queue: Queue, runner: str
) -> None:
    options = {"attempts": 3, "backoff": {"type": "fixed", "delay": 10}}
    if runner == "us":
        template = {"name": "flaky", "data": {"who": "a"}, "opts": options}
        await node("schedule", id="s", repeat={"every": HOUR_MS}, template=template)
    else:
        await queue.schedules.upsert(
            "s", "flaky", {"who": "a"}, when=Every("1h"), attempts=3, backoff=0.01
        )

    if runner == "us":
        async with at_work(app):
            await eventually(lambda: node.has(completed=1))
    else:
        await node.work()
        await eventually(lambda: node.has(completed=1))

    (job,) = await iterations(node)
    (pending,) = await node("jobs", types=["delayed"])
    assert (job["returnvalue"], job["attemptsMade"]) == ("well", 2)
    assert pending["opts"]["repeat"]["count"] == 2
    assert (pending["opts"]["attempts"], pending["attemptsMade"]) == (3, 0)
    assert _due_ms(pending["id"]) - _due_ms(job["id"]) == HOUR_MS


@pytest.mark.parametrize("changer", SIDES)
async def test_a_waiting_iteration_is_replaced_while_the_queue_is_paused(
    node: NodeQueue, app: App, queue: Queue, changer: str
) -> None:
    await node("pause")
    await upsert(other(changer), node, queue, Every("1h"), {"n": 1})

    await upsert(changer, node, queue, Every("2h"), {"n": 2})

    await node("resume")
    async with at_work(app):
        await eventually(lambda: _at_least(node, 1))
        await eventually(lambda: node.has(delayed=1, waiting=0, active=0))
    results = [job["returnvalue"] for job in await iterations(node)]
    # A second one is what Node 6 leaves behind there, and it does not go on.
    assert results == ([{"n": 2}] if changer == "us" or node.is_older else [{"n": 1}, {"n": 2}])


async def test_a_start_an_offset_and_an_immediate_run_of_node_are_kept_by_us(
    node: NodeQueue, app: App, queue: Queue
) -> None:
    soon_ms = int(datetime.now(UTC).timestamp() * 1_000) + 200
    template = {"name": "echo", "data": {}}
    repeat: dict[str, Any] = {"every": HOUR_MS, "startDate": soon_ms}
    await node("schedule", id="from", repeat=repeat, template=template)
    repeat = {"every": HOUR_MS, "offset": 60_000}
    await node("schedule", id="slot", repeat=repeat, template=template)
    repeat = {"pattern": "0 3 * * *", "tz": "UTC", "immediately": True}
    await node("schedule", id="now", repeat=repeat, template=template)

    async with at_work(app):
        await eventually(lambda: node.has(completed=2, delayed=3))

    due = {schedule.id: schedule.next_run_at_ms or 0 for schedule in await queue.schedules.list()}
    assert due["from"] == soon_ms + HOUR_MS
    assert due["slot"] % HOUR_MS == 60_000
    assert due["now"] % (24 * HOUR_MS) == 3 * HOUR_MS


@pytest.mark.parametrize("remover", SIDES)
async def test_a_schedule_is_removed_by_the_other_side(
    node: NodeQueue, queue: Queue, redis: aioredis.Redis, app: App, remover: str
) -> None:
    await upsert(other(remover), node, queue, Cron("0 3 * * *"), {"n": 1})

    removed = await (
        node("unschedule", id="s") if remover == "node" else queue.schedules.remove("s")
    )

    assert removed is True
    assert await node("schedules") == await queue.schedules.list() == []
    assert (await node("counts"))["delayed"] == 0
    assert [key async for key in redis.scan_iter(f"{app.prefix}:mail:repeat*")] == []


async def test_a_pending_iteration_is_removed_by_neither_side(
    node: NodeQueue, queue: Queue
) -> None:
    await upsert("us", node, queue, Cron("0 3 * * *"))
    (pending,) = await node("jobs", types=["delayed"])

    assert await queue.remove([pending["id"]]) == ["next_iteration"]
    await queue.drain(delayed=True)
    await node("drain", delayed=True)

    assert (await node("counts"))["delayed"] == 1


async def test_a_repeatable_of_the_older_generation_goes_on_with_its_data(
    node_processes: dict[str, NodeProcess], app: App
) -> None:
    older = NodeQueue(node_processes["bullmq5"], app.prefix, "mail")
    await older.add("echo", {"a": 1}, repeat={"every": 100})

    runners = await in_turns(older, app, until=(2, 4, 6))

    jobs = (await iterations(older))[:6]
    assert set(runners) == {"us", "node"}
    assert [job["returnvalue"] for job in jobs] == [{"a": 1}] * 6
    assert [job["opts"]["repeat"]["count"] for job in jobs] == [1, 2, 3, 4, 5, 6]
    await older.close()


async def test_an_older_cron_repeatable_goes_on_here_with_its_data(
    node_processes: dict[str, NodeProcess], app: App
) -> None:
    older = NodeQueue(node_processes["bullmq5"], app.prefix, "mail")
    await older.add("echo", {"a": 1}, repeat={"pattern": "* * * * * *", "limit": 2})

    async with at_work(app):
        await eventually(lambda: older.has(completed=2, delayed=0))

    assert [job["returnvalue"] for job in await iterations(older)] == [{"a": 1}] * 2
    await older.close()
