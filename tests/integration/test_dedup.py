from __future__ import annotations

import pytest

from tests.factories import HandWorker
from tickbird import Dedup, InvalidOption, JobState, Queue


async def events(queue: Queue, kind: str) -> list[dict[bytes, bytes]]:
    entries = await queue._connection.reader.xrange(queue._keys.of("events"))
    return [fields for _, fields in entries if fields[b"event"] == kind.encode()]


async def test_a_second_add_finds_the_first_until_it_has_finished(queue: Queue) -> None:
    worker = HandWorker(queue)
    first = await queue.add("x", 1, dedup="k")
    second = await queue.add("x", 2, dedup="k")
    await worker.end(await worker.take_one())
    third = await queue.add("x", 3, dedup="k")

    assert (second.id, second.created) == (first.id, False)
    assert (third.id != first.id, third.created) == (True, True)
    (told,) = await events(queue, "deduplicated")
    assert told[b"deduplicationId"] == b"k"
    assert told[b"jobId"] == first.id.encode()


async def test_a_ttl_outlives_the_job(queue: Queue) -> None:
    worker = HandWorker(queue)
    first = await queue.add("x", dedup=Dedup("k", ttl="1h"))
    await worker.end(await worker.take_one())

    again = await queue.add("x", dedup=Dedup("k", ttl="1h"))

    assert (again.id, again.created) == (first.id, False)
    assert 0 < await queue._connection.reader.pttl(queue._keys.of("de:k")) <= 3_600_000


async def test_an_extended_ttl_starts_anew(queue: Queue) -> None:
    key = queue._keys.of("de:k")
    await queue.add("x", dedup=Dedup("k", ttl="1h", extend=True))
    await queue._connection.reader.pexpire(key, 5_000)

    await queue.add("x", dedup=Dedup("k", ttl="1h", extend=True))

    assert await queue._connection.reader.pttl(key) > 3_000_000


async def test_a_debounced_job_is_replaced_by_the_newest(queue: Queue) -> None:
    debounce = Dedup("k", ttl="1h", extend=True, replace=True)
    first = await queue.add("x", 1, delay="1h", dedup=debounce)
    second = await queue.add("x", 2, delay="1h", dedup=debounce)

    (left,) = await queue._inspector.list_jobs(queue.ref, JobState.DELAYED)
    assert (second.created, left.id, left.data_start) == (True, second.id, "2")
    assert await first.state() is JobState.UNKNOWN
    assert await queue._connection.reader.get(queue._keys.of("de:k")) == second.id.encode()


async def test_the_last_proposal_made_while_running_becomes_a_job(queue: Queue) -> None:
    worker = HandWorker(queue)
    keep = Dedup("k", keep_last=True)
    await queue.add("x", 1, dedup=keep)
    running = await worker.take_one()
    dropped = await queue.add("x", 2, dedup=keep)
    kept = await queue.add("x", 3, dedup=keep, priority=4)

    await worker.end(running)

    (next_job,) = await queue._inspector.list_jobs(queue.ref, JobState.PRIORITIZED)
    assert (dropped.created, kept.created) == (False, False)
    assert (next_job.data_start, next_job.priority) == ("3", 4)
    assert await queue._connection.reader.exists(queue._keys.of("dn:k")) == 0
    again = await queue.add("x", 4, dedup=keep)
    assert again.id == next_job.id


async def test_a_delayed_job_is_rescheduled(queue: Queue) -> None:
    first = await queue.add("x", delay="1h", dedup=Dedup("k", reschedule=True))
    before = await first.job()
    await queue.add("x", delay="2h", dedup=Dedup("k", reschedule=True))

    after = await first.job()
    assert before is not None
    assert after is not None
    assert before.due_at_ms is not None
    assert after.due_at_ms is not None
    assert 3_590_000 < after.due_at_ms - before.due_at_ms < 3_660_000


async def test_an_owner_that_is_gone_owns_nothing(queue: Queue) -> None:
    first = await queue.add("x", dedup="k")
    await queue._connection.reader.delete(queue._keys.job(first.id))

    second = await queue.add("x", dedup="k")

    assert second.created


async def test_a_wrong_dedup_is_refused() -> None:
    with pytest.raises(InvalidOption, match="dedup key"):
        Dedup("")
    with pytest.raises(InvalidOption, match="needs a ttl"):
        Dedup("k", extend=True)
    with pytest.raises(InvalidOption, match="longer than 0"):
        Dedup("k", ttl=0)
