from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec
import pytest

from tests.factories import HandWorker
from tickbird import DataTooLarge, InvalidOption, JobState, Queue, QueueInUse, Removal
from tickbird.flow import FlowNode
from tickbird.storage.keys import QueueKeys

KEYS_OF_A_JOB = ("", ":logs", ":dependencies", ":processed", ":failed", ":unsuccessful")


async def state(queue: Queue, job_id: str) -> JobState:
    return await queue._inspector.get_state(queue.ref, job_id)


async def counts(queue: Queue) -> dict[str, int]:
    (sample,) = await queue._inspector.sample([queue.ref])
    return {str(name): count for name, count in sample.counts.items() if count}


async def events(queue: Queue, *names: str) -> list[dict[str, str]]:
    """The events of these names, without our own property."""
    found = await queue._connection.reader.xrange(QueueKeys(queue.ref).of("events"))
    decoded = [{k.decode(): v.decode() for k, v in fields.items()} for _, fields in found]
    for fields in decoded:
        fields.pop("tb", None)
    return [fields for fields in decoded if fields["event"] in names]


async def in_order(queue: Queue, count: int) -> list[str]:
    """The next jobs, in the order a worker takes them."""
    return [job.id.decode() for job in await HandWorker(queue).take(count)]


async def fail(queue: Queue, count: int, **options: Any) -> list[str]:
    handles = await queue.add_many([("x", n, options) for n in range(count)])
    worker = HandWorker(queue)
    for _ in handles:
        await worker.end(await worker.take_one(), "failed")
    return [handle.id for handle in handles]


async def put_schedule(queue: Queue, state: str) -> str:
    """A scheduler by another client, with its next iteration in a state."""
    keys, reader = QueueKeys(queue.ref), queue._connection.reader
    job_id = "repeat:daily:2100000000000"
    await reader.zadd(keys.of("repeat"), {"daily": 2_100_000_000_000})
    await reader.hset(keys.of("repeat:daily"), mapping={"name": "x", "ic": 1, "every": 1000})
    await reader.hset(keys.job(job_id), mapping={"name": "x", "data": "{}", "opts": "{}",
        "timestamp": 1, "delay": 0, "priority": 0, "rjk": "daily"})  # fmt: skip
    if state == "wait":
        await reader.lpush(keys.of("wait"), job_id)
    else:
        await reader.zadd(keys.of(state), {job_id: 2_100_000_000_000 * 4096})
    return job_id


async def put_family(queue: Queue, children: int, *, parent: str = "p") -> list[str]:
    """A parent with children that wait, as any client stores them."""
    keys, reader = QueueKeys(queue.ref), queue._connection.reader
    handles = await queue.add_many([("child", n) for n in range(children)])
    await reader.hset(keys.job(parent), mapping={"name": "parent", "data": "{}", "opts": "{}",
        "timestamp": 1, "delay": 0, "priority": 0})  # fmt: skip
    await reader.zadd(keys.of("waiting-children"), {parent: 1})
    pipe = reader.pipeline(transaction=False)
    for handle in handles:
        pipe.sadd(keys.job(parent) + ":dependencies", keys.job(handle.id))
        pipe.hset(keys.job(handle.id), "parentKey", keys.job(parent))
    await pipe.execute()
    return [handle.id for handle in handles]


async def everything(queue: Queue) -> set[str]:
    reader = queue._connection.reader
    pattern = f"*{queue.ref.prefix}:{queue.name}:*"
    return {key.decode() async for key in reader.scan_iter(match=pattern, count=1000)}


async def sweep(queue: Queue, *, dry_run: bool) -> tuple[set[str], set[tuple[str, str]], int]:
    """A whole search for orphans, in small steps."""
    jobs: set[str] = set()
    ids: set[tuple[str, str]] = set()
    removed, cursor = 0, "0:0"
    while cursor:
        found = await queue.remove_orphans(limit=20, cursor=cursor, dry_run=dry_run)
        jobs |= set(found.job_ids)
        ids |= set(found.ids)
        removed += found.removed
        cursor = found.cursor
    return jobs, ids, removed


# --- promote ------------------------------------------------------------------


async def test_a_promoted_job_waits_in_its_place(queue: Queue) -> None:
    plain = await queue.add("x", delay="1h")
    first = await queue.add("x", delay="1h", priority=3)

    assert await queue.promote([first.id, plain.id, "missing", plain.id]) == [
        True, True, False, False,
    ]  # fmt: skip

    job = await plain.job()
    assert job is not None
    assert (job.state, job.delay_ms) == (JobState.WAITING, 0)
    assert await first.state() is JobState.PRIORITIZED
    assert await events(queue, "waiting") == [
        {"event": "waiting", "jobId": first.id, "prev": "delayed"},
        {"event": "waiting", "jobId": plain.id, "prev": "delayed"},
    ]
    assert await in_order(queue, 2) == [plain.id, first.id]


async def test_promoting_all_keeps_the_order_they_were_due_in(queue: Queue) -> None:
    late, early = [await queue.add("x", delay=delay) for delay in ("2h", "1h")]
    told: list[int] = []

    assert await queue.promote_all(on_progress=told.append) == 2

    assert told[-1] == 2
    assert await in_order(queue, 2) == [early.id, late.id]
    assert await queue.promote_all() == 0


async def test_promoting_all_takes_no_job_twice(queue: Queue) -> None:
    await queue.add_many([("x", n, {"delay": "1h"}) for n in range(1_200)])
    worker = HandWorker(queue)
    done = asyncio.Event()

    async def fail_and_delay() -> int:
        ended = 0
        while not done.is_set():
            for job in await worker.take(50):
                await worker.end(job, "retried", delay_ms=3_600_000)
                ended += 1
        return ended

    failing = asyncio.create_task(fail_and_delay())
    assert await queue.promote_all() == 1_200
    done.set()
    ended = await failing
    assert await counts(queue) == {
        k: v for k, v in {"delayed": ended, "waiting": 1_200 - ended}.items() if v
    }


# --- delay, priority, data ----------------------------------------------------


async def test_a_delay_is_changed_from_now_on(queue: Queue) -> None:
    handle = await queue.add("x", delay="1h")
    before = await handle.job()

    assert await queue.change_delay(handle.id, "2h")

    after = await handle.job()
    assert before is not None
    assert after is not None
    assert after.delay_ms == 7_200_000
    assert after.due_at_ms is not None
    assert before.due_at_ms is not None
    assert after.due_at_ms >= before.due_at_ms + 3_600_000
    marker = await queue._connection.reader.zscore(QueueKeys(queue.ref).of("marker"), "1")
    assert marker == after.due_at_ms
    waiting = await queue.add("x")
    assert not await queue.change_delay(waiting.id, 1)
    assert not await queue.change_delay("missing", 1)
    with pytest.raises(InvalidOption, match="ten years"):
        await queue.change_delay(handle.id, "36500d")


@pytest.mark.parametrize("lifo", [False, True])
async def test_a_waiting_job_moves_to_its_new_priority(queue: Queue, *, lifo: bool) -> None:
    one, two, three = [await queue.add("x", priority=p) for p in (0, 5, 5)]
    plain = await queue.add("x")

    assert await queue.change_priority(one.id, 5, lifo=lifo)

    expected = [one.id, two.id, three.id] if lifo else [two.id, three.id, one.id]
    assert await in_order(queue, 4) == [plain.id, *expected]


@pytest.mark.parametrize("lifo", [False, True])
async def test_a_job_can_lose_its_priority(queue: Queue, *, lifo: bool) -> None:
    first, second = await queue.add("x"), await queue.add("x")
    moved = await queue.add("x", priority=5)

    assert await queue.change_priority(moved.id, 0, lifo=lifo)

    expected = [first.id, second.id]
    assert await in_order(queue, 3) == ([moved.id, *expected] if lifo else [*expected, moved.id])


async def test_a_priority_counts_when_the_job_next_waits(queue: Queue) -> None:
    delayed = await queue.add("x", delay="1h")
    active = await queue.add("x")
    worker = HandWorker(queue)
    job = await worker.take_one()

    assert await queue.change_priority(delayed.id, 7)
    assert await queue.change_priority(active.id, 3)
    await queue.promote([delayed.id])
    await worker.end(job, "retried")

    assert await in_order(queue, 2) == [active.id, delayed.id]
    assert not await queue.change_priority("missing", 1)
    assert await everything(queue) & {QueueKeys(queue.ref).job("missing")} == set()
    for wrong in (-1, 2_097_152, True, 1.5):
        with pytest.raises(InvalidOption, match="priority must be"):
            await queue.change_priority(delayed.id, wrong)  # type: ignore[arg-type]


async def test_data_is_replaced_and_checked(redis_url: str, prefix: str) -> None:
    queue = Queue("mail", redis=redis_url, prefix=prefix, max_data_bytes=20)
    handle = await queue.add("x", {"n": 1})

    assert await queue.update_data(handle.id, {"n": 2})

    job = await handle.job()
    assert job is not None
    assert job.data == '{"n":2}'
    assert not await queue.update_data("missing", 1)
    assert QueueKeys(queue.ref).job("missing") not in await everything(queue)
    with pytest.raises(DataTooLarge):
        await queue.update_data(handle.id, "x" * 30)
    with pytest.raises(InvalidOption, match="not JSON"):
        await queue.update_data(handle.id, float("nan"))
    await queue.aclose()


# --- limits -------------------------------------------------------------------


async def test_a_global_concurrency_holds_until_it_is_lifted(queue: Queue) -> None:
    await queue.add_many([("x", n) for n in range(4)])
    worker = HandWorker(queue)

    await queue.set_global_concurrency(2)
    assert len(await worker.take(10)) == 2
    await queue._connection.reader.delete(QueueKeys(queue.ref).of("marker"))
    await queue.set_global_concurrency(None)

    assert await queue._connection.reader.zscore(QueueKeys(queue.ref).of("marker"), "0") == 0
    assert len(await worker.take(10)) == 2
    for wrong in (0, -1, True, "2"):
        with pytest.raises(InvalidOption, match="global concurrency"):
            await queue.set_global_concurrency(wrong)  # type: ignore[arg-type]


async def test_a_global_rate_limit_holds_until_it_is_lifted(queue: Queue) -> None:
    await queue.add_many([("x", n) for n in range(9)])
    worker = HandWorker(queue)

    await queue.set_global_rate_limit("2/h")
    assert len(await worker.take(10)) == 2
    assert await worker.take(10) == []
    await queue.remove_rate_limit()
    assert len(await worker.take(10)) == 2
    await queue.set_global_rate_limit(None)

    assert len(await worker.take(10)) == 5


async def test_a_hold_needs_a_rate_limit_to_be_heeded(queue: Queue) -> None:
    await queue.add_many([("x", n) for n in range(3)])
    worker = HandWorker(queue)

    assert not await queue.rate_limit("1h")
    assert len(await worker.take(1)) == 1
    await queue.set_global_rate_limit("1000/s")
    assert await queue.rate_limit("1h")
    assert await worker.take(1) == []
    await queue.remove_rate_limit()

    assert len(await worker.take(1)) == 1
    with pytest.raises(InvalidOption, match="longer than 0"):
        await queue.rate_limit(0)


# --- remove -------------------------------------------------------------------


async def in_wait(queue: Queue) -> str:
    return (await queue.add("x")).id


async def in_prioritized(queue: Queue) -> str:
    return (await queue.add("x", priority=1)).id


async def in_delayed(queue: Queue) -> str:
    return (await queue.add("x", delay="1h")).id


async def in_completed(queue: Queue) -> str:
    handle = await queue.add("x")
    worker = HandWorker(queue)
    await worker.end(await worker.take_one())
    return handle.id


async def in_failed(queue: Queue) -> str:
    return (await fail(queue, 1))[0]


async def in_active(queue: Queue) -> str:
    handle = await queue.add("x")
    await HandWorker(queue).take_one()
    await queue._connection.reader.delete(QueueKeys(queue.ref).job(handle.id) + ":lock")
    return handle.id


async def in_paused(queue: Queue) -> str:
    handle = await queue.add("x")
    keys = QueueKeys(queue.ref)
    await queue._connection.reader.rename(keys.of("wait"), keys.of("paused"))
    return handle.id


@pytest.mark.parametrize(
    "seed", [in_wait, in_prioritized, in_delayed, in_completed, in_failed, in_active, in_paused]
)
async def test_a_removed_job_leaves_nothing_behind(
    queue: Queue, seed: Callable[[Queue], Awaitable[str]]
) -> None:
    job_id = await seed(queue)
    stays = await queue.add("x", delay="1h")
    keys, reader = QueueKeys(queue.ref), queue._connection.reader
    await reader.rpush(keys.logs(job_id), "a line")

    assert await queue.remove([job_id, job_id]) == [Removal.REMOVED, Removal.MISSING]

    assert await counts(queue) == {"delayed": 1}
    left = await everything(queue)
    assert not {keys.job(job_id) + suffix for suffix in KEYS_OF_A_JOB} & left
    assert keys.job(stays.id) in left
    previous = seed.__name__.removeprefix("in_")
    assert await events(queue, "removed") == [
        {"event": "removed", "jobId": job_id, "prev": previous}
    ]
    assert await reader.zcard(keys.own("locks")) == 0
    (sample,) = await queue._inspector.sample([queue.ref])
    counted = "waiting" if previous in ("wait", "paused") else previous
    assert sample.stats.removed == {counted: 1}


async def test_a_locked_job_is_not_removed(queue: Queue) -> None:
    handle = await queue.add("x")
    worker = HandWorker(queue)
    job = await worker.take_one()

    assert await queue.remove([handle.id]) == [Removal.LOCKED]

    assert await worker.end(job) == 0
    assert await queue.remove([handle.id]) == [Removal.REMOVED]


async def test_one_of_twenty_removals_at_once_wins(queue: Queue) -> None:
    handle = await queue.add("x")

    results = await asyncio.gather(*(queue.remove([handle.id]) for _ in range(20)))

    assert sorted(found for (found,) in results) == [Removal.MISSING] * 19 + [Removal.REMOVED]


async def test_one_of_twenty_promotions_at_once_wins(queue: Queue) -> None:
    handle = await queue.add("x", delay="1h")

    results = await asyncio.gather(*(queue.promote([handle.id]) for _ in range(20)))

    assert sorted(found for (found,) in results) == [False] * 19 + [True]
    assert await counts(queue) == {"waiting": 1}


async def test_removing_takes_or_leaves_a_job_whole(queue: Queue) -> None:
    handles = await queue.add_many([("x", n) for n in range(300)])
    worker = HandWorker(queue)

    taken, *removals = await asyncio.gather(
        worker.take(100), *(queue.remove([handle.id]) for handle in handles)
    )

    removed = [found for (found,) in removals].count(Removal.REMOVED)
    assert {found for (found,) in removals} <= {Removal.REMOVED, Removal.LOCKED}
    for job in taken:
        assert await worker.end(job) == 0
    assert removed + len(taken) + (await counts(queue)).get("waiting", 0) == 300


async def test_the_next_iteration_of_a_schedule_is_not_removed(queue: Queue) -> None:
    job_id = await put_schedule(queue, "delayed")

    assert await queue.remove([job_id]) == [Removal.NEXT_ITERATION]
    await queue._connection.reader.zadd(
        QueueKeys(queue.ref).of("repeat"), {"daily": 2_100_000_001_000}
    )

    assert await queue.remove([job_id]) == [Removal.REMOVED]


async def test_a_removed_owner_frees_its_dedup_key(queue: Queue) -> None:
    handle = await queue.add("x")
    keys, reader = QueueKeys(queue.ref), queue._connection.reader
    await reader.hset(keys.job(handle.id), "deid", "k")
    await reader.set(keys.of("de:k"), handle.id)
    await reader.hset(keys.of("dn:k"), "name", "y")
    other = await queue.add("x")
    await reader.hset(keys.job(other.id), "deid", "k")

    await queue.remove([other.id])
    assert await reader.exists(keys.of("de:k"), keys.of("dn:k")) == 2
    await queue.remove([handle.id])

    assert await reader.exists(keys.of("de:k"), keys.of("dn:k")) == 0


async def test_a_family_goes_with_its_parent(queue: Queue) -> None:
    await put_family(queue, 3)
    keys, reader = QueueKeys(queue.ref), queue._connection.reader
    grandchild = await queue.add("x")
    await reader.sadd(keys.job("2") + ":dependencies", keys.job(grandchild.id))
    await reader.hset(keys.job(grandchild.id), "parentKey", keys.job("2"))
    done = await in_completed(queue)
    await reader.hset(keys.job("p") + ":processed", keys.job(done), "null")

    assert await queue.remove(["p"]) == [Removal.REMOVED]

    assert await counts(queue) == {}
    assert not [key for key in await everything(queue) if f"{keys.prefix}p" in key]
    assert (await events(queue, "removed"))[-1] == {
        "event": "removed", "jobId": "p", "prev": "wait",
    }  # fmt: skip


async def test_a_parent_can_go_alone(queue: Queue) -> None:
    children = await put_family(queue, 2)

    assert await queue.remove(["p"], children=False) == [Removal.REMOVED]

    assert await in_order(queue, 9) == children


async def test_a_locked_child_keeps_the_family(queue: Queue) -> None:
    children = await put_family(queue, 3)
    worker = HandWorker(queue)
    job = await worker.take_one()

    assert await queue.remove(["p"]) == [Removal.CHILD_LOCKED]

    assert await counts(queue) == {"waiting": 2, "active": 1, "waiting_children": 1}
    await worker.end(job)
    assert await queue.remove(["p", *children]) == [Removal.REMOVED] + [Removal.MISSING] * 3
    assert await counts(queue) == {}


async def test_a_removed_last_child_releases_its_parent(queue: Queue) -> None:
    first, second = await put_family(queue, 2)

    await queue.remove([first])
    assert await state(queue, "p") is JobState.WAITING_CHILDREN
    await queue.remove([second])

    assert await state(queue, "p") is JobState.WAITING
    assert await in_order(queue, 9) == ["p"]


async def test_a_large_family_goes_in_steps(queue: Queue) -> None:
    await put_family(queue, 1_700)

    assert await queue.remove(["p"]) == [Removal.REMOVED]

    assert await counts(queue) == {}
    assert len(await events(queue, "removed")) == 1_701


async def test_between_two_steps_of_a_removal_every_job_is_somewhere(queue: Queue) -> None:
    await put_family(queue, 700)
    ids = msgspec.msgpack.encode(["p"])

    assert await queue._write("remove_jobs", ids, 1) == [5]

    found = await counts(queue)
    assert found.pop("waiting_children") == 1
    assert 0 < found["waiting"] < 700
    assert await sweep(queue, dry_run=True) == (set(), set(), 0)
    assert await queue.remove(["p"]) == [Removal.REMOVED]
    assert await everything(queue) & {QueueKeys(queue.ref).job("p")} == set()


async def test_families_reach_over_queues(queue: Queue) -> None:
    other = Queue("other", redis=queue._connection, prefix=queue.ref.prefix)
    grandchild = FlowNode(queue="mail", name="g")
    child = FlowNode(queue="other", name="c", children=[grandchild])
    root = FlowNode(queue="mail", name="p", children=[child])
    first, second, third = [await queue.add_flow(root) for _ in range(3)]

    assert await queue.remove([first.job.id]) == [Removal.REMOVED]
    assert await counts(other) == {"waiting_children": 2}
    assert await other.remove([second.children[0].job.id]) == [Removal.REMOVED]
    assert await state(queue, second.job.id) is JobState.WAITING
    assert await queue.drain() == 2  # the second parent, and the last grandchild

    assert await counts(queue) == {"waiting_children": 1}
    assert await in_order(other, 9) == [third.children[0].job.id]


@pytest.mark.parametrize(
    ("script", "args"),
    [
        ("remove_jobs", (msgspec.msgpack.encode(["1"]), 1)),
        ("promote_jobs", (msgspec.msgpack.encode(["1"]), "")),
        ("change_delay", ("1", 5_000)),
        ("change_priority", ("1", 5, 0)),
        ("update_data", ("1", "[]")),
        ("clean_jobs", ("delayed", 1, 0, "", "")),
        ("drain_queue", ("delayed", 1, "", "")),
    ],
)
async def test_a_call_sent_again_acts_once(
    queue: Queue, script: str, args: tuple[object, ...]
) -> None:
    await queue.add_many([("x", n, {"delay": "1h"}) for n in range(3)])
    lane = queue._lanes.open()
    lane.begin()

    answer = await lane.send(script, *args, deadline_s=5)
    after = (await counts(queue), await events(queue, "removed", "waiting", "delayed", "cleaned"))
    again = await lane.send(script, *args, deadline_s=5)

    assert again == answer
    assert after == (
        await counts(queue),
        await events(queue, "removed", "waiting", "delayed", "cleaned"),
    )


async def test_a_family_that_bites_its_tail_is_removed_once(queue: Queue) -> None:
    (child,) = await put_family(queue, 1)
    keys = QueueKeys(queue.ref)
    await queue._connection.reader.sadd(keys.job(child) + ":dependencies", keys.job("p"))

    assert await queue.remove(["p"]) == [Removal.REMOVED]

    assert await counts(queue) == {}


async def test_an_id_without_a_job_is_taken_out_of_its_state(queue: Queue) -> None:
    await queue.add("x")
    keys = QueueKeys(queue.ref)
    await queue._connection.reader.zadd(keys.of("failed"), {"ghost": 1})
    await queue._connection.reader.lpush(keys.of("wait"), "other")

    assert await queue.remove(["ghost", "other", "nobody"]) == [
        Removal.REMOVED, Removal.REMOVED, Removal.MISSING,
    ]  # fmt: skip

    assert await counts(queue) == {"waiting": 1}
    with pytest.raises(InvalidOption, match="as a list"):
        await queue.remove("ghost")
    with pytest.raises(InvalidOption, match="at most 500"):
        await queue.remove(["x"] * 501)


async def test_jobs_are_found_at_both_ends_and_in_the_middle_of_a_long_list(queue: Queue) -> None:
    handles = await queue.add_many([("x", n) for n in range(3_000)])
    gone = [handles[n].id for n in (0, 1_499, 1_500, 2_999)]

    assert await queue.remove(gone) == [Removal.REMOVED] * 4

    left = [handle.id for handle in handles if handle.id not in gone]
    assert await in_order(queue, 1_000) == left[:1_000]


# --- replay -------------------------------------------------------------------


async def test_a_replay_may_keep_the_attempts_made(queue: Queue) -> None:
    (job_id,) = await fail(queue, 1)

    assert await queue.replay([job_id], reset_attempts=False) == [True]

    job = await queue._inspector.get_job(queue.ref, job_id)
    assert job is not None
    assert (job.attempts_made, job.attempts_started, job.error, job.replays) == (1, 1, None, 1)


async def test_all_failed_jobs_are_replayed_in_order(queue: Queue) -> None:
    ids = await fail(queue, 5)
    told: list[int] = []

    assert await queue.replay_all(on_progress=told.append) == 5

    assert told == [5]
    assert await in_order(queue, 9) == ids
    assert await queue.replay_all() == 0
    assert await queue.replay_all(JobState.COMPLETED) == 0
    with pytest.raises(InvalidOption, match="only failed or completed"):
        await queue.replay_all(JobState.ACTIVE)


async def test_replaying_all_stops_at_a_time_and_a_limit(queue: Queue) -> None:
    ids = await fail(queue, 4)
    keys, reader = QueueKeys(queue.ref), queue._connection.reader
    await reader.zadd(keys.of("failed"), {ids[0]: 1_000, ids[1]: 2_000, ids[2]: 3_000})

    assert await queue.replay_all(before_ms=2_000, limit=1) == 1
    assert await queue.replay_all(before_ms=2_000) == 1
    assert await queue.replay_all(before_ms=2_000) == 0

    assert await counts(queue) == {"waiting": 2, "failed": 2}


@pytest.mark.parametrize("skew_ms", [0, -60_000])
async def test_a_job_that_fails_again_meanwhile_is_not_taken_twice(
    queue: Queue, skew_ms: int
) -> None:
    """Also where another client finishes it by a clock that is late."""
    await fail(queue, 1_200)
    worker = HandWorker(queue)
    done = asyncio.Event()
    now_ms = await queue._server_ms()

    async def fail_again() -> int:
        failed = 0
        while not done.is_set():
            for job in await worker.take(50):
                await worker.end(job, "failed")
                if skew_ms:
                    await queue._connection.reader.zadd(
                        QueueKeys(queue.ref).of("failed"), {job.id: now_ms + skew_ms}
                    )
                failed += 1
        return failed

    failing = asyncio.create_task(fail_again())
    assert await queue.replay_all() == 1_200
    done.set()
    failed = await failing
    assert await counts(queue) == {
        k: v for k, v in {"failed": failed, "waiting": 1_200 - failed}.items() if v
    }


# --- clean --------------------------------------------------------------------


async def ages(queue: Queue, ids: Sequence[str], field: str, *times_ms: int) -> None:
    for job_id, at_ms in zip(ids, times_ms, strict=True):
        await queue._connection.reader.hset(QueueKeys(queue.ref).job(job_id), field, at_ms)


async def test_old_finished_jobs_are_cleaned(queue: Queue) -> None:
    ids = await fail(queue, 3)
    keys, reader = QueueKeys(queue.ref), queue._connection.reader
    await reader.zadd(keys.of("failed"), {ids[0]: 1, ids[1]: 2})

    assert await queue.clean(JobState.FAILED, grace="1h", limit=1) == 1
    assert await queue.clean(JobState.FAILED, grace="1h") == 1
    assert await queue.clean(JobState.FAILED, grace="1h") == 0

    assert await counts(queue) == {"failed": 1}
    assert keys.job(ids[0]) not in await everything(queue)
    assert await events(queue, "cleaned") == [{"event": "cleaned", "count": "1"}] * 2
    assert await queue.clean(JobState.FAILED) == 1


async def test_old_waiting_jobs_are_cleaned_wherever_they_stand(queue: Queue) -> None:
    handles = await queue.add_many([("x", n) for n in range(4_000)])
    old = [handle.id for handle in handles[::2]]
    await ages(queue, old, "timestamp", *range(len(old)))
    told: list[int] = []

    assert (
        await queue.clean(JobState.WAITING, grace="1h", limit=10_000, on_progress=told.append)
        == 2_000
    )

    assert told == sorted(told)
    left = [handle.id for handle in handles[1::2]]
    assert await queue._inspector.list_ids(queue.ref, JobState.WAITING, limit=9_999) == left


async def test_cleaning_waiting_jobs_obeys_its_limit(queue: Queue) -> None:
    await queue.add_many([("x", n) for n in range(700)])

    assert await queue.clean(JobState.WAITING, limit=601) == 601

    assert await in_order(queue, 1) == ["602"]


@pytest.mark.parametrize(
    ("kind", "options"),
    [(JobState.DELAYED, {"delay": "1h"}), (JobState.PRIORITIZED, {"priority": 2})],
)
async def test_old_jobs_of_a_sorted_set_are_cleaned(
    queue: Queue, kind: JobState, options: dict[str, Any]
) -> None:
    handles = await queue.add_many([("x", n, options) for n in range(2_500)])
    old = [handle.id for handle in handles[1::2]]
    await ages(queue, old, "timestamp", *range(len(old)))

    assert await queue.clean(kind, grace="1h", limit=5_000) == 1_250

    left = [handle.id for handle in handles[::2]]
    assert await queue._inspector.list_ids(queue.ref, kind, limit=9_999) == left


async def test_active_jobs_are_cleaned_only_without_a_lock(queue: Queue) -> None:
    held = await queue.add("x")
    lost = await queue.add("x")
    worker = HandWorker(queue)
    job, _ = await worker.take(2)
    keys, reader = QueueKeys(queue.ref), queue._connection.reader
    await reader.delete(keys.job(lost.id) + ":lock")

    assert await queue.clean(JobState.ACTIVE) == 1

    assert await reader.zrange(keys.own("locks"), 0, -1) == [held.id.encode()]
    assert await worker.end(job) == 0
    assert await lost.state() is JobState.UNKNOWN


@pytest.mark.parametrize("where", ["delayed", "wait"])
async def test_the_next_iteration_of_a_schedule_outlasts_clean_and_drain(
    queue: Queue, where: str
) -> None:
    job_id = await put_schedule(queue, where)
    kind = JobState.WAITING if where == "wait" else JobState.DELAYED
    await queue.add("x", **({} if where == "wait" else {"delay": "1h"}))

    assert await queue.clean(kind) == 1
    await queue.add("x", **({} if where == "wait" else {"delay": "1h"}))
    assert await queue.drain(delayed=True) == 1

    assert await state(queue, job_id) is kind


async def test_what_cannot_be_cleaned_is_refused(queue: Queue) -> None:
    with pytest.raises(InvalidOption, match="waiting_children"):
        await queue.clean(JobState.WAITING_CHILDREN)
    with pytest.raises(InvalidOption, match="limit"):
        await queue.clean(JobState.FAILED, limit=0)


async def test_cleaning_a_childs_failure_releases_its_parent(queue: Queue) -> None:
    (child,) = await put_family(queue, 1)
    worker = HandWorker(queue)
    await worker.end(await worker.take_one(), "failed")
    assert await state(queue, child) is JobState.FAILED

    await queue.clean(JobState.FAILED)

    assert await in_order(queue, 1) == ["p"]


# --- drain and obliterate -----------------------------------------------------


async def test_a_drained_queue_keeps_what_does_not_wait(queue: Queue) -> None:
    await in_completed(queue)
    await fail(queue, 1)
    running = await queue.add("x")
    await HandWorker(queue).take_one()
    await queue.add_many([("x", n) for n in range(1_300)])
    await queue.add_many([("x", n, {"priority": 1 + n % 3}) for n in range(700)])
    await queue.add("x", delay="1h")

    assert await queue.drain() == 2_000
    assert await counts(queue) == {"active": 1, "completed": 1, "failed": 1, "delayed": 1}
    assert await queue.drain(delayed=True) == 1

    assert await counts(queue) == {"active": 1, "completed": 1, "failed": 1}
    assert await running.state() is JobState.ACTIVE
    left = [key for key in await everything(queue) if key.rpartition(":")[2].isdigit()]
    assert len([key for key in left if not key.startswith("tickbird:")]) == 3


async def test_draining_releases_parents_of_what_waited(queue: Queue) -> None:
    await put_family(queue, 3)

    assert await queue.drain() == 3

    assert await in_order(queue, 9) == ["p"]


async def test_a_queue_is_obliterated_only_while_paused_and_idle(queue: Queue) -> None:
    await queue.add("x")
    await HandWorker(queue).take_one()

    with pytest.raises(QueueInUse, match="not paused"):
        await queue.obliterate()
    await queue.pause()
    with pytest.raises(QueueInUse, match="running"):
        await queue.obliterate()

    assert await queue.obliterate(force=True) == 1
    assert await everything(queue) == set()


async def test_an_obliteration_that_was_interrupted_goes_on(queue: Queue) -> None:
    await queue.add_many([("x", n) for n in range(10)])
    await queue.pause()
    await queue._run("obliterate_queue", 0, 3)

    assert await counts(queue) == {"waiting": 7}
    assert await sweep(queue, dry_run=True) == (set(), set(), 0)
    assert await queue.obliterate() == 7
    assert await everything(queue) == set()


async def test_an_obliterated_queue_leaves_no_key_and_no_entry(queue: Queue) -> None:
    await put_schedule(queue, "delayed")
    await put_family(queue, 5)
    await fail(queue, 700)
    await queue.add_many([("x", n, {"priority": 1}) for n in range(700)])
    await in_completed(queue)
    other = Queue("other", redis=queue._connection, prefix=queue.ref.prefix)
    kept = await other.add("x")
    await queue.pause()

    assert await queue.obliterate() == 1 + 6 + 700 + 700 + 1
    assert await queue.obliterate() == 0

    assert await everything(queue) == set()
    assert queue.ref not in await queue._inspector.discover()
    assert other.ref in await queue._inspector.discover()
    assert await kept.state() is JobState.WAITING
    again = await queue.add("x")
    assert again.id == "1"
    assert queue.ref in await queue._inspector.discover()


# --- orphans ------------------------------------------------------------------


async def test_orphans_are_shown_and_then_removed(queue: Queue) -> None:
    keys, reader = QueueKeys(queue.ref), queue._connection.reader
    await in_completed(queue)
    await put_schedule(queue, "delayed")
    await queue.add_many([("x", n) for n in range(50)])
    await HandWorker(queue).take(3)
    lost = await queue.add("x")
    await reader.lrem(keys.of("wait"), 1, lost.id)
    await reader.hset(keys.job("residue"), "ats", 1)
    await reader.hset(keys.of("dn:k"), mapping={"name": "x", "data": "{}"})
    await reader.zadd(keys.of("failed"), {"ghost": 1})
    await reader.lpush(keys.of("wait"), "other")
    before = await counts(queue)

    expected = ({lost.id, "residue"}, {("failed", "ghost"), ("wait", "other")})
    assert await sweep(queue, dry_run=True) == (*expected, 0)
    assert await counts(queue) == before
    assert await sweep(queue, dry_run=False) == (*expected, 4)
    assert await sweep(queue, dry_run=True) == (set(), set(), 0)
    assert await counts(queue) == {
        "waiting": 47, "active": 3, "completed": 1, "delayed": 1,
    }  # fmt: skip
    with pytest.raises(InvalidOption, match="cursor"):
        await queue.remove_orphans(cursor="x")


async def test_no_job_at_work_is_taken_for_an_orphan(queue: Queue) -> None:
    await queue.add_many([("x", n) for n in range(2_000)])
    worker = HandWorker(queue)
    done = asyncio.Event()

    async def work() -> int:
        ended = 0
        while not done.is_set():
            for job in await worker.take(20):
                await worker.end(job, "retried" if ended % 3 else "completed")
                ended += 1
        return ended

    working = asyncio.create_task(work())
    for _ in range(3):
        cursor = ""
        while True:
            found = await queue.remove_orphans(limit=500, cursor=cursor, dry_run=False)
            assert found.removed == 0
            cursor = found.cursor
            if not cursor:
                break
    done.set()
    await working

    assert sum((await counts(queue)).values()) == 2_000


# --- all at once --------------------------------------------------------------


async def test_upkeep_of_a_queue_at_work_loses_and_invents_nothing(queue: Queue) -> None:
    total = 20_000
    await queue.add_many([("x", n) for n in range(total)])
    worker = HandWorker(queue)
    done = asyncio.Event()

    async def work() -> None:
        while not done.is_set():
            jobs = await worker.take(100)
            for n, job in enumerate(jobs):
                await worker.end(job, "failed" if n % 2 else "completed")

    working = asyncio.create_task(work())
    cleaned = replayed = 0
    for _ in range(4):
        cleaned += await queue.clean(JobState.COMPLETED, limit=2_000)
        replayed += await queue.replay_all(limit=1_000)
        cleaned += await queue.clean(JobState.WAITING, limit=1_500)
    drained = await queue.drain()
    done.set()
    await working

    assert cleaned + drained + sum((await counts(queue)).values()) == total
    (sample,) = await queue._inspector.sample([queue.ref])
    assert sample.stats.attempts() > 0
    assert sum(sample.stats.removed.values()) == cleaned + drained
    assert sample.stats.replayed.get("failed", 0) == replayed
    assert sample.stats.vanished == 0
