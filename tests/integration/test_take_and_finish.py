from __future__ import annotations

import asyncio

import pytest

from tests.factories import HandWorker, ended
from tickbird import JobState, Outcome, Queue


async def counts(queue: Queue) -> dict[str, int]:
    (sample,) = await queue._inspector.sample([queue.ref])
    return {state.value: n for state, n in sample.counts.items() if n}


async def test_a_finished_job_is_completed_with_its_result(queue: Queue) -> None:
    handle = await queue.add("x")
    worker = HandWorker(queue)
    job = await worker.take_one()

    code = await worker.end(job, text='{"ok":true}')

    found = await handle.job()
    assert code == 0
    assert found is not None
    assert (found.state, found.result, found.attempts_made) == (
        JobState.COMPLETED,
        '{"ok":true}',
        1,
    )


async def test_one_call_ends_jobs_and_takes_the_next(queue: Queue) -> None:
    await queue.add_many([("x", n) for n in range(5)])
    worker = HandWorker(queue)
    jobs = await worker.take(2)

    codes, taken = await worker.exchange([ended(job) for job in jobs], 10)

    assert (codes, len(taken)) == ([0, 0], 3)
    assert await counts(queue) == {"active": 3, "completed": 2}


async def test_the_same_call_again_gives_the_same_jobs_and_ends_nothing_twice(queue: Queue) -> None:
    await queue.add_many([("x", n) for n in range(4)])
    worker = HandWorker(queue)
    jobs = await worker.take(2)
    outcomes = [ended(job) for job in jobs]

    first = await worker.exchange(outcomes, 2)
    again = await worker.send_again(outcomes, 2)

    (sample,) = await queue._inspector.sample([queue.ref])
    assert [job.id for job in first[1]] == [job.id for job in again[1]]
    assert first[0] == again[0] == [0, 0]
    assert sample.counts[JobState.COMPLETED] == 2
    assert sample.counts[JobState.ACTIVE] == 2
    assert sample.stats.attempts(Outcome.COMPLETED) == 2


async def test_an_attempt_that_lost_its_lock_writes_nothing(queue: Queue) -> None:
    handle = await queue.add("x")
    worker = HandWorker(queue)
    old = await worker.take_one()
    await queue._connection.reader.set(f"{worker.keys.job(handle.id)}:lock", "tb:another:1:1")

    code = await worker.end(old)

    assert code == 1
    assert await counts(queue) == {"active": 1}


async def test_taking_a_job_twice_in_one_worker_fences_the_first_attempt(queue: Queue) -> None:
    await queue.add("x")
    worker = HandWorker(queue)
    first = await worker.take_one()
    await worker.end(first, "handed_back")
    second = await worker.take_one()

    refused = await worker.end(first)
    accepted = await worker.end(second)

    assert (refused, accepted) == (1, 0)
    assert first.token != second.token


async def test_a_failed_attempt_waits_for_its_next(queue: Queue) -> None:
    handle = await queue.add("x", attempts=2)
    worker = HandWorker(queue)
    job = await worker.take_one()

    await worker.end(job, "retried", text="boom", stacktrace='["boom"]', delay_ms=60_000)

    found = await handle.job()
    assert found is not None
    assert (found.state, found.error, found.attempts_made) == (JobState.DELAYED, "boom", 1)
    assert found.stacktraces == ("boom",)


async def test_a_final_failure_is_a_dead_letter(queue: Queue) -> None:
    handle = await queue.add("x")
    worker = HandWorker(queue)

    await worker.end(await worker.take_one(), "failed", text="boom", attempts=1)

    assert await handle.state() is JobState.FAILED
    events = await queue._connection.reader.xrange(worker.keys.of("events"))
    kinds = [fields[b"event"] for _, fields in events]
    assert kinds[-3:] == [b"failed", b"retries-exhausted", b"drained"]


@pytest.mark.parametrize("delayed", [True, False])
async def test_a_worker_that_finds_nothing_tells_it_unless_jobs_are_delayed(
    queue: Queue, *, delayed: bool
) -> None:
    await queue.add("x")
    if delayed:
        await queue.add("x", delay="1h")
    worker = HandWorker(queue)
    job = await worker.take_one()

    await worker.exchange([ended(job)], 1)

    events = await queue._connection.reader.xrange(worker.keys.of("events"))
    kinds = [fields[b"event"] for _, fields in events]
    assert (b"drained" in kinds) is not delayed


async def test_handing_back_spends_no_attempt_and_keeps_the_place(queue: Queue) -> None:
    await queue.add_many([("x", 1), ("x", 2)])
    worker = HandWorker(queue)
    job = await worker.take_one()

    await worker.end(job, "handed_back", started=False)

    (again,) = await worker.take(1)
    found = await queue._inspector.get_job(queue.ref, again.id.decode())
    assert again.data == b"1"
    assert found is not None
    assert (found.attempts_made, found.attempts_started, found.stalls) == (0, 1, 0)


async def test_a_paused_queue_gives_nothing_and_keeps_what_is_added(queue: Queue) -> None:
    await queue.add("x", 1)
    await queue.pause()
    await queue.pause()
    await queue.add("x", 2)
    worker = HandWorker(queue)

    while_paused = await worker.take(10)
    await queue.resume()
    after = await worker.take(10)

    assert while_paused == []
    assert [job.data for job in after] == [b"1", b"2"]


async def test_a_resume_merges_what_an_old_client_parked(queue: Queue) -> None:
    keys = HandWorker(queue).keys
    client = queue._connection.reader
    await queue.add_many([("x", n) for n in (1, 2)])
    await client.hset(keys.of("meta"), "version", "bullmq:5.81.5")
    await client.rename(keys.of("wait"), keys.of("paused"))  # what such a client's pause does
    await client.hset(keys.of("meta"), "paused", 1)
    await queue.add("x", 3)

    await queue.resume()

    jobs = await HandWorker(queue).take(10)
    assert [job.data for job in jobs] == [b"1", b"2", b"3"]
    assert await client.exists(keys.of("paused")) == 0


async def test_global_concurrency_bounds_a_batch(queue: Queue) -> None:
    await queue.add_many([("x", n) for n in range(10)])
    worker = HandWorker(queue)
    await queue._connection.reader.hset(worker.keys.of("meta"), "concurrency", 3)

    first = await worker.take(10)
    second = await worker.take(10)

    assert (len(first), len(second)) == (3, 0)


async def test_a_rate_limit_bounds_a_batch_and_gets_an_end(queue: Queue) -> None:
    await queue.add_many([("x", n) for n in range(10)])
    worker = HandWorker(queue)
    client = queue._connection.reader
    await client.hset(worker.keys.of("meta"), mapping={"max": 4, "duration": 60_000})

    taken = await worker.take(3) + await worker.take(10)
    refused = await worker.take(10)

    assert (len(taken), refused) == (4, [])
    assert 0 < await client.pttl(worker.keys.of("limiter")) <= 60_000
    assert worker.reply[3] > 0


async def test_a_counter_without_an_end_is_given_one(queue: Queue) -> None:
    await queue.add_many([("x", n) for n in range(3)])
    worker = HandWorker(queue)
    client = queue._connection.reader
    await client.hset(worker.keys.of("meta"), mapping={"max": 2, "duration": 60_000})
    await client.set(worker.keys.of("limiter"), 2)

    taken = await worker.take(10)

    assert taken == []
    assert await client.pttl(worker.keys.of("limiter")) > 0


async def test_an_id_without_a_job_is_dropped_and_counted(queue: Queue) -> None:
    worker = HandWorker(queue)
    client = queue._connection.reader
    await queue.add("x", 1)
    await client.rpush(worker.keys.of("wait"), "ghost", "0:123")
    await client.set(worker.keys.job("no-hash"), "a text")
    await client.rpush(worker.keys.of("wait"), "no-hash")

    jobs = await worker.take(10)

    (sample,) = await queue._inspector.sample([queue.ref])
    assert [job.data for job in jobs] == [b"1"]
    assert sample.stats.vanished == 2
    assert sample.counts[JobState.ACTIVE] == 1


async def test_a_key_of_the_wrong_kind_spoils_neither_the_batch_nor_the_worker(
    queue: Queue,
) -> None:
    await queue.add_many([("x", 1), ("x", 2)])
    worker = HandWorker(queue)
    jobs = await worker.take(2)
    await queue._connection.reader.set(worker.keys.of("wait"), "not a list")

    codes, taken = await worker.exchange([ended(job) for job in jobs], 5)

    assert (codes, taken) == ([0, 0], [])
    assert b"WRONGTYPE" in worker.reply[5]


async def test_a_job_removed_while_it_ran_is_dropped(queue: Queue) -> None:
    handle = await queue.add("x")
    worker = HandWorker(queue)
    job = await worker.take_one()
    await queue._connection.reader.delete(worker.keys.job(handle.id))

    code = await worker.end(job)

    assert code == 3
    assert await counts(queue) == {}
    assert await queue._connection.reader.exists(f"{worker.keys.job(handle.id)}:lock") == 0


async def test_no_lock_and_no_deadline_is_left_behind(queue: Queue) -> None:
    await queue.add_many([("x", n) for n in range(4)])
    worker = HandWorker(queue)
    jobs = await worker.take(4)
    outcomes = [
        ended(jobs[0]), ended(jobs[1], "failed"), ended(jobs[2], "retried", delay_ms=5_000),
        ended(jobs[3], "handed_back"),
    ]  # fmt: skip

    await worker.exchange(outcomes, 0)

    client = queue._connection.reader
    assert await client.keys(f"{worker.keys.prefix}*:lock") == []
    assert await client.exists(worker.keys.own("locks")) == 0


async def test_two_workers_never_take_the_same_job(queue: Queue) -> None:
    await queue.add_many([("x", n) for n in range(300)])
    workers = [HandWorker(queue, id=f"w{n}") for n in range(6)]

    async def drain(worker: HandWorker) -> list[bytes]:
        ids: list[bytes] = []
        while jobs := await worker.take(7):
            ids += [job.id for job in jobs]
        return ids

    ids = [i for batch in await asyncio.gather(*map(drain, workers)) for i in batch]

    assert len(ids) == len(set(ids)) == 300


@pytest.mark.parametrize(("count", "left"), [(0, 0), (2, 2), (-1, 5)])
async def test_a_keep_rule_bounds_what_stays(queue: Queue, count: int, left: int) -> None:
    await queue.add_many([("x", n) for n in range(5)])
    worker = HandWorker(queue)
    jobs = await worker.take(5)

    await worker.exchange([ended(job, keep_count=count) for job in jobs], 0)

    kept = await queue._inspector.list_jobs(queue.ref, JobState.COMPLETED)
    assert len(kept) == left
    assert {job.id for job in kept} == {str(n) for n in range(6 - left, 6)} if left else not kept
    hashes = [await queue._connection.reader.exists(worker.keys.job(str(n))) for n in range(1, 6)]
    assert sum(hashes) == left


async def test_a_keep_rule_by_age_removes_the_old(queue: Queue) -> None:
    await queue.add_many([("x", n) for n in range(2)])
    worker = HandWorker(queue)
    old, new = await worker.take(2)
    await worker.exchange([ended(old)], 0, now_ms=1_000_000)

    await worker.exchange([ended(new, keep_age_s=60)], 0)

    kept = await queue._inspector.list_jobs(queue.ref, JobState.COMPLETED)
    assert [job.id for job in kept] == [new.id.decode()]


async def test_long_runners_at_the_end_of_a_long_list_are_still_found(queue: Queue) -> None:
    await queue.add_many([("x", n) for n in range(600)])
    worker = HandWorker(queue)
    jobs = [job for _ in range(6) for job in await worker.take(100)]

    first_and_last = [ended(jobs[0]), ended(jobs[-1]), ended(jobs[300])]
    codes, _ = await worker.exchange(first_and_last, 0)

    assert codes == [0, 0, 0]
    assert (await counts(queue))["active"] == 597
