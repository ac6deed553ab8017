"""One dedup key for both languages: who adds first, who adds again, who finishes."""

from __future__ import annotations

from typing import Any

import pytest
import redis.asyncio as aioredis

from tests.conftest import eventually
from tests.interop.bullmq import NodeQueue
from tests.interop.tasks import at_work
from tickbird import App, Dedup, JobState, Queue

pytestmark = pytest.mark.interop

SIDES = ["node", "us"]
TTL_MS = 60_000


def other(side: str) -> str:
    return "us" if side == "node" else "node"


class Adder:
    """Adds `echo` jobs with one dedup key from either side."""

    def __init__(self, node: NodeQueue, queue: Queue) -> None:
        self._node = node
        self._queue = queue

    async def __call__(
        self, side: str, n: int, *, name: str = "echo", delay_ms: int = 0, **mode: Any
    ) -> str:
        """The id of the job that stands for it."""
        delay: dict[str, Any] = {"delay": delay_ms} if delay_ms else {}
        if side == "us":
            delay = {"delay": delay_ms / 1_000} if delay_ms else {}
            dedup = Dedup("k", **mode)
            handle = await self._queue.add(name, {"n": n}, dedup=dedup, **delay)
            return handle.id
        names = {"keep_last": "keepLastIfActive"}
        wanted = {names.get(option, option): value for option, value in mode.items()}
        if "ttl" in wanted:
            wanted["ttl"] = int(wanted["ttl"] * 1_000)
        return await self._node.add(name, {"n": n}, deduplication={"id": "k", **wanted}, **delay)


@pytest.fixture
def add(node: NodeQueue, queue: Queue) -> Adder:
    return Adder(node, queue)


async def finish_all(side: str, node: NodeQueue, app: App, done: int) -> None:
    """That side's worker does what waits."""
    if side == "us":
        async with at_work(app):
            await eventually(lambda: node.has(completed=done))
        return
    await node.work()
    await eventually(lambda: node.has(completed=done))
    await node("stopWorking")


@pytest.mark.parametrize("first", SIDES)
async def test_the_second_add_finds_the_first_job_until_that_has_finished(
    node: NodeQueue, app: App, add: Adder, first: str
) -> None:
    kept = await add(first, 1)
    assert await add(other(first), 2) == kept
    assert await node("owner", key="k") == kept

    await finish_all(other(first), node, app, 1)

    assert await node("owner", key="k") is None
    assert await add(other(first), 3) != kept
    (told,) = [fields for event, fields in await node.heard(added=2) if event == "deduplicated"]
    assert (told["jobId"], told["deduplicationId"]) == (kept, "k")
    assert told["deduplicatedJobId"] not in ("", kept)


@pytest.mark.parametrize("first", SIDES)
async def test_a_throttled_key_outlives_its_job(
    node: NodeQueue, app: App, add: Adder, redis: aioredis.Redis, first: str
) -> None:
    kept = await add(first, 1, ttl=60)
    await finish_all(other(first), node, app, 1)

    ttl_ms = await redis.pttl(f"{app.prefix}:mail:de:k")
    assert await add(other(first), 2, ttl=60) == kept
    assert TTL_MS - 20_000 < await redis.pttl(f"{app.prefix}:mail:de:k") <= ttl_ms
    assert await node("owner", key="k") == kept


@pytest.mark.parametrize("first", SIDES)
async def test_each_add_starts_an_extended_ttl_anew(
    app: App, add: Adder, redis: aioredis.Redis, first: str
) -> None:
    kept = await add(first, 1, ttl=60, extend=True)
    await redis.pexpire(f"{app.prefix}:mail:de:k", 5_000)

    assert await add(other(first), 2, ttl=60, extend=True) == kept

    assert await redis.pttl(f"{app.prefix}:mail:de:k") > TTL_MS - 20_000


@pytest.mark.parametrize("extend", [True, False], ids=["debounce", "replace"])
@pytest.mark.parametrize("first", SIDES)
async def test_a_delayed_job_gives_way_to_the_others_newer_one(
    node: NodeQueue, app: App, add: Adder, redis: aioredis.Redis, *, first: str, extend: bool
) -> None:
    mode: dict[str, Any] = {"ttl": 60, "replace": True, "delay_ms": 50_000}
    if extend:
        mode["extend"] = True
    gone = await add(first, 1, **mode)
    await redis.pexpire(f"{app.prefix}:mail:de:k", 5_000)

    newer = await add(other(first), 2, **mode)

    assert newer != gone
    assert await node("job", id=gone) is None
    job = await node("job", id=newer)
    assert (job["state"], job["data"]) == ("delayed", {"n": 2})
    assert await node("owner", key="k") == newer
    assert (await redis.pttl(f"{app.prefix}:mail:de:k") > 5_000) is extend
    told = await node.heard(added=2, deduplicated=1, removed=1)
    kinds = [event for event, fields in told if fields.get("jobId") in (gone, newer)]
    assert kinds == ["added", "delayed", "removed", "deduplicated", "added", "delayed"]


@pytest.mark.parametrize("first", SIDES)
async def test_a_job_that_waits_does_not_give_way(add: Adder, node: NodeQueue, first: str) -> None:
    kept = await add(first, 1, replace=True)

    assert await add(other(first), 2, replace=True) == kept
    assert (await node("job", id=kept))["data"] == {"n": 1}


@pytest.mark.parametrize("runner", SIDES)
@pytest.mark.parametrize("adder", SIDES)
async def test_the_last_proposal_is_run_when_the_running_job_has_ended(
    node: NodeQueue, app: App, add: Adder, redis: aioredis.Redis, *, runner: str, adder: str
) -> None:
    first = await add(other(adder), 1, name="hold", keep_last=True)

    async def propose_while_it_runs() -> Any:
        await node.job_in("active", first)
        for n in (2, 3):
            assert await add(adder, n, keep_last=True) == first
        await redis.lpush(f"{app.prefix}-gate", "go")
        await eventually(lambda: node.has(completed=2))

    if runner == "us":
        async with at_work(app):
            await propose_while_it_runs()
    else:
        await node.work()
        await propose_while_it_runs()
        await node("stopWorking")

    jobs = {job["id"]: job for job in await node("jobs", types=["completed"])}
    (last,) = [job for job_id, job in jobs.items() if job_id != first]
    assert (last["name"], last["data"], last["returnvalue"]) == ("echo", {"n": 3}, {"n": 3})
    assert await redis.exists(f"{app.prefix}:mail:de:k", f"{app.prefix}:mail:dn:k") == 0


@pytest.mark.parametrize("first", SIDES)
async def test_a_rescheduled_job_gets_the_others_delay(
    node: NodeQueue, queue: Queue, add: Adder, first: str
) -> None:
    kept = await add(first, 1, reschedule=True, delay_ms=3_600_000)
    knows_it = not (node.is_older and first == "us")  # Node does from version 6 on

    assert await add(other(first), 2, reschedule=True, delay_ms=7_200_000) == kept

    job = await queue.job(kept)
    shown = await node("job", id=kept)
    assert job is not None
    assert job.due_at_ms is not None
    assert (job.due_at_ms - job.added_at_ms >= 7_200_000) is knows_it
    assert (shown["state"], shown["data"]) == ("delayed", {"n": 1})
    assert shown["delay"] == (7_200_000 if knows_it else 3_600_000)


@pytest.mark.parametrize("second", SIDES)
async def test_a_key_whose_job_is_gone_is_taken_over(
    node: NodeQueue, app: App, add: Adder, redis: aioredis.Redis, second: str
) -> None:
    gone = await add(other(second), 1)
    await redis.delete(f"{app.prefix}:mail:{gone}")

    newer = await add(second, 2)

    frees_it = not (node.is_older and second == "node")  # Node does from version 6 on
    assert (newer != gone) is frees_it
    assert await node("owner", key="k") == newer


@pytest.mark.parametrize("remover", SIDES)
async def test_a_key_is_free_when_the_other_side_removes_its_job(
    node: NodeQueue, queue: Queue, add: Adder, remover: str
) -> None:
    kept = await add(other(remover), 1, ttl=60)

    await (node("remove", id=kept) if remover == "node" else queue.remove([kept]))

    assert await node("owner", key="k") is None
    assert await add(remover, 2) != kept


@pytest.mark.parametrize("replayer", SIDES)
async def test_a_failed_job_frees_its_key_and_is_no_owner_when_retried(
    node: NodeQueue, app: App, queue: Queue, add: Adder, replayer: str
) -> None:
    handle = await queue.add("fail", {"reason": "no"}, attempts=1, dedup="k")
    async with at_work(app):
        await node.job_in("failed", handle.id)
    newer = await add(other(replayer), 2)

    await (node("retry", id=handle.id) if replayer == "node" else queue.replay([handle.id]))

    assert newer != handle.id
    assert await node("owner", key="k") == newer
    assert await queue.state(handle.id) is JobState.WAITING
