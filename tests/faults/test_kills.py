"""Real worker processes, killed and stopped; nothing may be lost and nothing blamed wrongly."""

from __future__ import annotations

import random
import signal

import pytest

from tests.conftest import eventually
from tests.faults.conftest import Fleet
from tickbird import JobState, Outcome, Queue

pytestmark = pytest.mark.faults


@pytest.fixture
def queue_name() -> str:
    return "work"


async def counts(queue: Queue) -> dict[JobState, int]:
    (sample,) = await queue._inspector.sample([queue.ref])
    return {state: n for state, n in sample.counts.items() if n}


def settled(queue: Queue, finished: int):  # noqa: ANN201 - a check for eventually
    async def check() -> bool:
        now = await counts(queue)
        done = now.get(JobState.COMPLETED, 0) + now.get(JobState.FAILED, 0)
        return done == finished and set(now) <= {JobState.COMPLETED, JobState.FAILED}

    return check


async def test_killed_workers_lose_nothing_and_fail_nobody(queue: Queue, fleet: Fleet) -> None:
    keys = [f"k{n}" for n in range(1_500)]
    await queue.add_many([("work", {"key": key}) for key in keys])
    rand = random.Random(7)
    kills, concurrency = 5, 10
    for _ in range(3):
        fleet.start("--concurrency", str(concurrency))

    for round_ in range(1, kills + 1):
        await eventually(lambda n=round_: _started(fleet, n * 200))
        victim = rand.choice([p for p in fleet.processes if p.poll() is None])
        victim.send_signal(signal.SIGKILL)
        victim.wait()
        fleet.start("--concurrency", str(concurrency))
    await eventually(settled(queue, len(keys)), 60)

    (sample,) = await queue._inspector.sample([queue.ref])
    again = sum(n - 1 for n in fleet.lines("start").values())
    assert await counts(queue) == {JobState.COMPLETED: len(keys)}
    assert set(fleet.lines("end")) == set(keys)
    assert again <= sample.stats.stalled <= kills * concurrency
    assert sample.stats.attempts(Outcome.COMPLETED) == len(keys)
    assert await queue._connection.reader.keys(f"{queue.ref.prefix}:*:lock") == []


async def _started(fleet: Fleet, n: int) -> bool:
    return sum(fleet.lines("start").values()) >= n


async def test_a_blocked_event_loop_keeps_its_job(queue: Queue, fleet: Fleet) -> None:
    await queue.add("block", {"key": "b", "ms": 6_000})  # four times the lock
    for _ in range(2):
        fleet.start("--concurrency", "2")

    await eventually(settled(queue, 1), 30)

    (sample,) = await queue._inspector.sample([queue.ref])
    assert await counts(queue) == {JobState.COMPLETED: 1}
    assert fleet.lines("start") == {"b": 1}
    assert sample.stats.stalled == 0


async def test_a_poison_job_fails_alone(queue: Queue, fleet: Fleet) -> None:
    innocents = [f"k{n}" for n in range(300)]
    await queue.add_many([("work", {"key": key, "ms": 5}) for key in innocents[:150]])
    await queue.add("poison", {"key": "poison"})
    await queue.add_many([("work", {"key": key, "ms": 5}) for key in innocents[150:]])
    deaths = 0
    fleet.start("--concurrency", "50")

    async def keep_two_alive_until_done() -> bool:
        nonlocal deaths
        alive = [p for p in fleet.processes if p.poll() is None]
        for _ in range(2 - len(alive)):
            fleet.start("--concurrency", "50")
        deaths = sum(p.poll() is not None for p in fleet.processes)
        return bool(await settled(queue, 301)())

    await eventually(keep_two_alive_until_done, 90)

    failed = await queue._inspector.list_jobs(queue.ref, JobState.FAILED)
    assert [job.name for job in failed] == ["poison"]
    assert failed[0].error == "job stalled more than allowable limit"
    assert set(fleet.lines("end")) == set(innocents)
    assert deaths == fleet.lines("start")["poison"] == 4


async def test_a_stop_hands_back_what_is_not_done(queue: Queue, fleet: Fleet) -> None:
    await queue.add_many([("work", {"key": f"short{n}", "ms": 300}) for n in range(3)])
    await queue.add("work", {"key": "long", "ms": 60_000})
    await queue.add("in_thread", {"key": "thread", "ms": 60_000})
    await queue.add_many([("work", {"key": f"later{n}"}) for n in range(20)])
    worker = fleet.start("--concurrency", "5", "--grace", "1s")
    await eventually(lambda: _started(fleet, 5))

    worker.send_signal(signal.SIGTERM)

    assert worker.wait(timeout=15) == 0
    waiting = await queue._inspector.list_jobs(queue.ref, JobState.WAITING, limit=100)
    done = await queue._inspector.list_jobs(queue.ref, JobState.COMPLETED, limit=100)
    (sample,) = await queue._inspector.sample([queue.ref])
    assert set(await counts(queue)) == {JobState.WAITING, JobState.COMPLETED}
    assert len(waiting) + len(done) == 25
    assert {job.attempts_made for job in waiting} == {0}
    assert fleet.lines("end").keys() >= {"short0", "short1", "short2"}
    assert (sample.stats.stalled, sample.workers) == (0, ())


async def test_a_rolling_deploy_spends_no_attempt(queue: Queue, fleet: Fleet) -> None:
    keys = [f"k{n}" for n in range(600)]
    await queue.add_many([("work", {"key": key, "ms": 30}) for key in keys])
    current = fleet.start("--concurrency", "5", "--grace", "0s")

    for round_ in range(1, 5):
        await eventually(lambda n=round_: _started(fleet, n * 60))
        successor = fleet.start("--concurrency", "5", "--grace", "0s")
        current.send_signal(signal.SIGTERM)
        assert current.wait(timeout=15) == 0
        current = successor
    await eventually(settled(queue, len(keys)), 60)

    (sample,) = await queue._inspector.sample([queue.ref])
    assert await counts(queue) == {JobState.COMPLETED: len(keys)}
    assert sample.stats.stalled == 0
    assert sample.stats.attempts() == len(keys)
