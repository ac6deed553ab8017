from __future__ import annotations

from typing import Any

import msgspec
import pytest

from tests.conftest import redis_server
from tests.factories import HandWorker
from tickbird import InvalidOption, JobOptions, JobState, Queue, QueueFull, RedisUnavailable
from tickbird.errors import InvalidUrl
from tickbird.storage.wire import NewJobMessage, new_job


def message() -> NewJobMessage:
    return new_job(JobOptions(), b"x", b"{}")


async def test_an_added_job_waits_and_carries_its_data(queue: Queue) -> None:
    handle = await queue.add("send", {"to": "a@example.org"})

    job = await handle.job()
    assert job is not None
    assert (job.state, job.name, job.data) == (JobState.WAITING, "send", '{"to":"a@example.org"}')


async def test_jobs_without_priority_run_in_order_and_before_priorities(queue: Queue) -> None:
    await queue.add_many(
        [
            ("x", 1, {"priority": 5}),
            ("x", 2),
            ("x", 3, {"priority": 1}),
            ("x", 4),
            ("x", 5, {"lifo": True}),
        ]
    )

    jobs = await HandWorker(queue).take(10)

    assert [job.data for job in jobs] == [b"5", b"2", b"4", b"3", b"1"]


async def test_a_delayed_job_is_taken_when_it_is_due_and_not_before(queue: Queue) -> None:
    handle = await queue.add("later", delay="1h")
    job = await handle.job()
    assert job is not None
    assert job.due_at_ms is not None
    worker = HandWorker(queue)

    early = await worker.take(1, now_ms=job.due_at_ms - 1)
    due = await worker.take(1, now_ms=job.due_at_ms)

    assert (early, [j.id.decode() for j in due]) == ([], [handle.id])


async def test_jobs_due_in_the_same_millisecond_keep_their_order(queue: Queue) -> None:
    now_ms = 1_795_451_552_705
    handles = await queue.add_many(
        [("x", n, {"delay": "1s", "timestamp_ms": now_ms}) for n in range(5)]
    )

    jobs = await HandWorker(queue).take(10, now_ms=now_ms + 1_000)

    assert [job.id.decode() for job in jobs] == [handle.id for handle in handles]


async def test_the_same_id_again_finds_the_first_job(queue: Queue) -> None:
    first = await queue.add("send", {"n": 1}, job_id="order-1")
    second = await queue.add("send", {"n": 2}, job_id="order-1")

    job = await second.job()
    assert (first.created, second.created, second.id) == (True, False, "order-1")
    assert job is not None
    assert job.data == '{"n":1}'


async def test_many_jobs_are_added_in_order_over_several_calls(queue: Queue) -> None:
    handles = await queue.add_many([("x", n) for n in range(1_234)])

    assert [int(handle.id) for handle in handles] == list(range(1, 1_235))


@pytest.mark.parametrize(
    "bad",
    [
        ("x", {"n": float("nan")}), ("x", "y" * 300_000), ("", {}), ("n" * 129, {}),
        ("x", {}, {"dealy": 1}), ("x", {}, {"job_id": "12"}), ("x", {}, {"delay": "20y"}),
        ("x", {}, {"delay": "3650d", "timestamp_ms": 2_000_000_000_000}),
    ],
)  # fmt: skip
async def test_a_refused_job_stores_nothing(queue: Queue, bad: Any) -> None:
    with pytest.raises(InvalidOption):
        await queue.add_many([("good", {}), bad])

    keys = await queue._connection.reader.keys(f"*{queue.ref.prefix}:*")
    assert keys == []


async def test_a_call_sent_again_adds_nothing_twice(queue: Queue) -> None:
    worker = HandWorker(queue)
    job = message()
    worker.lane.begin()

    first = await worker.lane.send("add_jobs", msgspec.msgpack.encode([job]), deadline_s=5)
    second = await worker.lane.send("add_jobs", msgspec.msgpack.encode([job]), deadline_s=5)

    sample = await queue._inspector.sample([queue.ref])
    assert first == second
    assert sample[0].counts[JobState.WAITING] == 1
    assert await queue._connection.reader.get(worker.keys.of("id")) == b"1"
    assert sample[0].stats.added == 1


async def test_a_late_copy_of_an_older_call_is_refused(queue: Queue) -> None:
    worker = HandWorker(queue)
    job = msgspec.msgpack.encode([message()])
    for _ in range(2):
        worker.lane.begin()
        await worker.lane.send("add_jobs", job, deadline_s=5)
    worker.lane.seq = 1

    with pytest.raises(Exception, match="LATE_CALL"):
        await worker.lane.send("add_jobs", job, deadline_s=5)

    sample = await queue._inspector.sample([queue.ref])
    assert sample[0].counts[JobState.WAITING] == 2


async def test_a_full_redis_refuses_adds_and_still_drains(prefix: str) -> None:
    with redis_server() as url:
        queue = Queue("mail", redis=url, prefix=prefix)
        await queue.add_many([("x", "y" * 1_000) for _ in range(500)])
        client = queue._connection.reader
        await client.config_set("maxmemory", "1mb")

        with pytest.raises(QueueFull, match="memory limit"):
            await queue.add("x")
        worker = HandWorker(queue)
        drained = 0
        while jobs := await worker.take(100):
            for job in jobs:
                assert await worker.end(job) == 0
            drained += len(jobs)

        assert drained == 500
        await queue.aclose()


async def test_no_server_is_one_plain_sentence() -> None:
    queue = Queue("mail", redis="redis://127.0.0.1:1/0", deadline_s=0.2)

    with pytest.raises(RedisUnavailable, match=r"no Redis answers at redis://127\.0\.0\.1:1/0"):
        await queue.add("x")


@pytest.mark.parametrize("url", ["localhost:6379", "http://x", "redis://h:port", "redis://h/db"])
def test_a_wrong_url_is_one_plain_sentence(url: str) -> None:
    with pytest.raises(InvalidUrl, match="cannot read the Redis URL"):
        Queue("mail", redis=url)


def test_a_password_is_not_shown() -> None:
    queue = Queue("mail", redis="redis://user:secret@localhost:1/0")

    assert "secret" not in repr(queue)
