from __future__ import annotations

import pytest

from tests.factories import HandWorker, expire_lock
from tickbird import JobState, Queue
from tickbird.attempt import STALLED_TOO_OFTEN
from tickbird.maintenance import Maintenance
from tickbird.storage.keys import QueueKeys


def care_of(queue: Queue, **how: int) -> Maintenance:
    return Maintenance(queue._connection, queue.ref, interval_s=1, grace_s=0, **how)


async def test_a_stalled_job_goes_back_to_waiting(queue: Queue) -> None:
    handle = await queue.add("x")
    await HandWorker(queue).take_one()
    await expire_lock(queue, handle.id)

    recovered = await care_of(queue).run_once()

    job = await handle.job()
    assert recovered == [handle.id]
    assert job is not None
    assert (job.state, job.stalls, job.attempts_made) == (JobState.WAITING, 1, 0)


async def test_a_live_job_is_left_alone(queue: Queue) -> None:
    handle = await queue.add("x")
    await HandWorker(queue).take_one()

    assert await care_of(queue).run_once() == []
    assert await handle.state() is JobState.ACTIVE


async def test_only_dead_jobs_of_ours_are_brought_back(queue: Queue) -> None:
    dead, live, gone, foreign = await queue.add_many([("x", n) for n in range(4)])
    worker = HandWorker(queue)
    await worker.take(4)
    client = queue._connection.reader
    await expire_lock(queue, dead.id)
    await client.zadd(worker.keys.own("locks"), {gone.id: 1, foreign.id: 1})
    await client.lrem(worker.keys.of("active"), 0, gone.id)
    await client.set(f"{worker.keys.job(foreign.id)}:lock", "a-node-worker:3")

    recovered = await care_of(queue).run_once()

    assert recovered == [dead.id]
    assert await live.state() is JobState.ACTIVE
    assert await foreign.state() is JobState.ACTIVE
    assert await client.zrange(worker.keys.own("locks"), 0, -1) == [live.id.encode()]


async def test_a_recovered_job_refuses_its_first_attempt(queue: Queue) -> None:
    handle = await queue.add("x")
    worker = HandWorker(queue)
    first = await worker.take_one()
    await expire_lock(queue, handle.id)
    await care_of(queue).run_once()
    second = await worker.take_one()

    assert await worker.end(first) == 1
    assert await worker.end(second) == 0


async def test_a_job_at_two_deaths_waits_apart(queue: Queue) -> None:
    handle = await queue.add("x")
    worker = HandWorker(queue)
    client = queue._connection.reader
    for _ in range(2):
        await worker.take_one()
        await expire_lock(queue, handle.id)
        await care_of(queue).run_once()

    job = await handle.job()
    assert job is not None
    assert (job.state, job.stalls) == (JobState.DELAYED, 2)
    assert await client.exists(worker.keys.of("wait")) == 0


async def test_a_worker_runs_one_suspect_at_a_time(queue: Queue) -> None:
    handles = await queue.add_many([("x", n) for n in range(4)])
    worker = HandWorker(queue)
    for handle in handles[:3]:
        await queue._connection.reader.hset(worker.keys.job(handle.id), "stc", 2)

    taken = await worker.take(10)
    none = await worker.take(10, suspect=False)

    assert [job.id.decode() for job in taken] == [handles[0].id, handles[3].id]
    assert none == []
    states = [await handle.state() for handle in handles]
    assert states == ["active", "delayed", "delayed", "active"]


@pytest.mark.parametrize("limit", [0, 3])
async def test_past_the_limit_the_next_taker_must_fail_it(queue: Queue, limit: int) -> None:
    handle = await queue.add("x")
    worker = HandWorker(queue)
    await queue._connection.reader.hset(worker.keys.job(handle.id), "stc", limit)
    await worker.take(1)
    await expire_lock(queue, handle.id)

    await care_of(queue, stall_limit=limit).run_once()

    (job,) = await worker.take(1)
    assert job.deferred_failure == STALLED_TOO_OFTEN
    assert job.stalls == limit + 1


async def test_many_stalled_jobs_come_back_in_one_pass(queue: Queue) -> None:
    handles = await queue.add_many([("x", n) for n in range(350)])
    worker = HandWorker(queue)
    await worker.take(350)
    client = queue._connection.reader
    await client.zadd(worker.keys.own("locks"), {handle.id: 1 for handle in handles})

    recovered = await care_of(queue).run_once()

    (sample,) = await queue._inspector.sample([queue.ref])
    assert len(recovered) == len(set(recovered)) == 350
    assert sample.counts[JobState.WAITING] == 350
    assert sample.stats.stalled == 350


async def test_a_deadline_of_a_clock_that_ran_ahead_is_pulled_back(queue: Queue) -> None:
    handle = await queue.add("x")
    worker = HandWorker(queue)
    await worker.take_one()
    client = queue._connection.reader
    await client.zadd(worker.keys.own("locks"), {handle.id: 2**45})

    await care_of(queue).run_once()

    seconds, _ = await client.time()
    deadline_ms = await client.zscore(worker.keys.own("locks"), handle.id)
    assert 0 < deadline_ms - seconds * 1_000 <= 601_000


class MovedClock:
    """A clock a test moves."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def now_ms(self) -> int:
        return int(self.now_s * 1_000)

    def monotonic_s(self) -> float:
        return self.now_s


async def test_after_a_gap_of_its_own_nobody_is_judged_at_once(queue: Queue) -> None:
    handle = await queue.add("x")
    await HandWorker(queue).take_one()
    clock = MovedClock()
    care = Maintenance(queue._connection, queue.ref, interval_s=5, grace_s=10, clock=clock)
    await care.run_once()
    await expire_lock(queue, handle.id)

    clock.now_s += 60  # everything stood still
    after_gap = await care.run_once()
    clock.now_s += 5
    in_grace = await care.run_once()
    clock.now_s += 6
    after_grace = await care.run_once()

    assert (after_gap, in_grace, after_grace) == ([], [], [handle.id])


async def test_a_place_that_a_suspect_leaves_is_offered_to_who_waits(queue: Queue) -> None:
    await queue.set_global_concurrency(1)
    suspect, _ = await queue.add_many([("x", {}), ("x", {})])
    worker = HandWorker(queue)
    await worker.take_one()
    client = queue._connection.reader
    await client.hset(worker.keys.job(suspect.id), "stc", 1)
    await expire_lock(queue, suspect.id)
    await client.delete(worker.keys.of("marker"))

    await care_of(queue).run_once()

    assert await suspect.state() is JobState.DELAYED
    assert await client.zscore(worker.keys.of("marker"), "0") == 0


# --- what other clients leave ---------------------------------------------------


async def leave_as_node(queue: Queue, n: int = 1) -> list[str]:
    """Jobs that a worker of Node took, which has gone since: active, no lock, no deadline."""
    handles = await queue.add_many([("x", {}) for _ in range(n)])
    client, keys = queue._connection.reader, QueueKeys(queue.ref)
    for handle in handles:
        await client.lmove(keys.of("wait"), keys.of("active"), "RIGHT", "LEFT")
        await client.hset(keys.job(handle.id), mapping={"processedOn": 1, "ats": 1})
    return [handle.id for handle in handles]


async def a_check_passes(queue: Queue) -> None:
    """What an interval does: the last look is long enough ago."""
    await queue._connection.reader.set(QueueKeys(queue.ref).of("stalled-check"), 1, px=10_000)


async def test_a_job_another_client_left_is_back_after_two_looks(queue: Queue) -> None:
    (job_id,) = await leave_as_node(queue)
    care = care_of(queue)

    first = await care.run_once()
    await a_check_passes(queue)
    second = await care.run_once()

    job = await queue.job(job_id)
    assert (first, second) == ([], [job_id])
    assert job is not None
    assert (job.state, job.stalls) == (JobState.WAITING, 1)


async def test_two_looks_at_once_are_one(queue: Queue) -> None:
    await leave_as_node(queue)

    assert [await care_of(queue).run_once() for _ in range(3)] == [[], [], []]


async def test_a_job_another_client_works_on_is_left_alone(queue: Queue) -> None:
    (job_id,) = await leave_as_node(queue)
    client, keys = queue._connection.reader, QueueKeys(queue.ref)
    await client.set(f"{keys.job(job_id)}:lock", "a-node-worker:3")

    for _ in range(3):
        assert await care_of(queue).run_once() == []
        await a_check_passes(queue)
    assert await queue.state(job_id) is JobState.ACTIVE


async def test_all_that_others_left_comes_back_in_one_pass_and_ours_stays(queue: Queue) -> None:
    left = await leave_as_node(queue, 2_500)
    mine = await queue.add("x")
    await HandWorker(queue).take_one()
    care = care_of(queue)
    await care.run_once()
    await a_check_passes(queue)

    recovered = await care.run_once()

    assert sorted(recovered, key=int) == left
    assert await mine.state() is JobState.ACTIVE
    assert await queue._connection.reader.exists(QueueKeys(queue.ref).of("stalled")) == 0


async def test_other_clients_stand_down_for_two_checks(queue: Queue) -> None:
    care = Maintenance(queue._connection, queue.ref, interval_s=60, grace_s=0)
    client, key = queue._connection.reader, QueueKeys(queue.ref).of("stalled-check")

    await care.run_once()
    first_ms = await client.get(key)
    await client.pexpire(key, 1_000)
    await care.run_once()

    assert await client.get(key) == first_ms
    assert 100_000 < await client.pttl(key) <= 120_000


async def test_other_clients_judge_for_themselves_where_that_is_wanted(queue: Queue) -> None:
    await leave_as_node(queue)
    care = care_of(queue, recover_foreign=False)

    for _ in range(2):
        assert await care.run_once() == []
        await a_check_passes(queue)
    await queue._connection.reader.delete(QueueKeys(queue.ref).of("stalled-check"))
    await care.run_once()

    assert await queue._connection.reader.exists(QueueKeys(queue.ref).of("stalled-check")) == 0


@pytest.mark.parametrize(
    ("stalls", "text", "runs"),
    [
        (2, STALLED_TOO_OFTEN, True),
        (3, STALLED_TOO_OFTEN, True),
        (4, STALLED_TOO_OFTEN, False),
        (2, "child bull:q:1 failed", False),
    ],
)
async def test_what_others_gave_up_on_runs_within_our_limit(
    queue: Queue, stalls: int, text: str, *, runs: bool
) -> None:
    handle = await queue.add("x", {"n": 1})
    client, key = queue._connection.reader, QueueKeys(queue.ref).job(handle.id)
    await client.hset(key, mapping={"stc": stalls, "defa": text})

    job = await HandWorker(queue, limits={"stall_limit": 3}).take_one()

    assert job.deferred_failure == (None if runs else text)
    assert (job.data, job.stalls) == (b'{"n":1}', stalls)
    assert await client.hexists(key, "defa") is not runs
