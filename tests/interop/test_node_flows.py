"""Families of jobs over two queues and both languages: who adds, who runs which member."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import redis.asyncio as aioredis

from tests.conftest import eventually
from tests.interop.bullmq import NodeQueue
from tests.interop.tasks import at_work
from tickbird import App, FlowNode, JobState, Parent, Queue, Removal
from tickbird.flow import Children, OnFailure

pytestmark = pytest.mark.interop

SIDES = ["node", "us"]
FLAGS: dict[OnFailure | None, str] = {
    "fail_parent": "failParentOnFailure",
    "continue_parent": "continueParentOnFailure",
    "ignore": "ignoreDependencyOnFailure",
    "remove": "removeDependencyOnFailure",
    None: "",
}


@pytest.fixture
def kids(node: NodeQueue, app: App) -> NodeQueue:
    """The children's queue in Node."""
    return NodeQueue(node.process, app.prefix, "kids")


def other(side: str) -> str:
    return "us" if side == "node" else "node"


def member(
    queue: str, name: str, data: Any, *children: FlowNode, job_id: str = "", **more: Any
) -> FlowNode:
    options = {"job_id": job_id} if job_id else {}
    return FlowNode(
        queue=queue, name=name, data=data, children=children,
        options={**options, **more.pop("options", {})}, **more,
    )  # fmt: skip


def as_node_has_it(tree: FlowNode) -> dict[str, Any]:
    opts = {"jobId" if name == "job_id" else name: value for name, value in tree.options.items()}
    if tree.on_failure is not None:
        opts[FLAGS[tree.on_failure]] = True
    return {
        "name": tree.name, "queueName": tree.queue, "data": tree.data, "opts": opts,
        "children": [as_node_has_it(child) for child in tree.children],
    }  # fmt: skip


async def add(side: str, node: NodeQueue, queue: Queue, tree: FlowNode) -> None:
    if side == "node":
        await node("flow", tree=as_node_has_it(tree))
    else:
        await queue.add_flow(tree)


@asynccontextmanager
async def works(side: str, queue: NodeQueue, app: App) -> AsyncIterator[None]:
    """One side's only worker on a queue, for the length of the block; one job at a time."""
    name = queue.name
    if side == "us":
        async with at_work(app, queues=(name,), concurrency=1):
            yield
    else:
        await queue.work()
        yield
        await queue("stopWorking")


async def seen_alike(node: NodeQueue, queue: Queue, job_id: str) -> Children:
    """A parent's children, which both sides must see alike."""
    ours, theirs = await queue.children(job_id), await node("children", id=job_id)
    dependencies = theirs["dependencies"]
    assert sorted(dependencies.get("unprocessed", [])) == list(ours.pending)
    assert set(dependencies.get("processed", {})) == set(ours.completed)
    assert theirs["ignored"] == ours.ignored
    assert theirs["counts"] == {
        "failed": len(ours.failed), "ignored": len(ours.ignored),
        "processed": len(ours.completed), "unprocessed": len(ours.pending),
    }  # fmt: skip
    return ours


# --- all goes well --------------------------------------------------------------


@pytest.mark.parametrize("parents", SIDES)
@pytest.mark.parametrize("adder", SIDES)
async def test_three_generations_over_two_queues_add_up(
    node: NodeQueue, kids: NodeQueue, app: App, queue: Queue, *, adder: str, parents: str
) -> None:
    first, second = member("kids", "double", {"n": 1}), member("mail", "double", {"n": 2})
    middle = member("kids", "sum", {"n": 10}, first, second, job_id="middle")
    tree = member(
        "mail", "sum", {"n": 100}, middle, member("kids", "double", {"n": 3}), job_id="top"
    )
    await add(adder, node, queue, tree)

    assert await queue.state("top") is JobState.WAITING_CHILDREN
    async with works(parents, node, app), works(other(parents), kids, app):
        job = await node.job_in("completed", "top")

    children = await seen_alike(node, queue, "top")
    flow = await node("getFlow", id="top")
    assert job["returnvalue"] == 100 + (10 + 2 + 4) + 6
    assert children.completed[f"{app.prefix}:kids:middle"] == "16"
    assert (
        sorted((child["queue"], child["state"]) for child in flow["children"])
        == [("kids", "completed")] * 2
    )
    (shown,) = [child for child in flow["children"] if child["id"] == "middle"]
    assert sorted((child["queue"], child["state"]) for child in shown["children"]) == [
        ("kids", "completed"), ("mail", "completed"),
    ]  # fmt: skip


@pytest.mark.parametrize("side", SIDES)
async def test_a_job_waits_for_a_child_it_adds_and_the_other_side_runs(
    node: NodeQueue, kids: NodeQueue, app: App, queue: Queue, side: str
) -> None:
    await queue.add("spawn", {"queue": "kids", "n": 21}, job_id="p")

    async with works(side, node, app):
        job = await node.job_in("waiting-children", "p")
        assert await queue.state("p") is JobState.WAITING_CHILDREN
        assert (job["attemptsMade"], job["attemptsStarted"]) == (0, 1)
        assert (await seen_alike(node, queue, "p")).pending == (f"{app.prefix}:kids:p-child",)

        async with works(other(side), kids, app):
            job = await node.job_in("completed", "p")

    assert (job["returnvalue"], job["attemptsMade"], job["attemptsStarted"]) == (42, 1, 2)


@pytest.mark.parametrize("side", SIDES)
async def test_a_child_given_to_the_others_parent_keeps_it_waiting(
    node: NodeQueue, kids: NodeQueue, app: App, queue: Queue, side: str
) -> None:
    first = member("kids", "double", {"n": 1}, job_id="first")
    await add(other(side), node, queue, member("mail", "sum", {"n": 0}, first, job_id="p"))

    if side == "us":
        ours = Parent(queue=queue.ref, job_id="p")
        await queue.sibling("kids").add_child(ours, "double", {"n": 5}, job_id="second")
    else:
        theirs = {"id": "p", "queue": f"{app.prefix}:mail"}
        await kids.add("double", {"n": 5}, jobId="second", parent=theirs)
    async with works(side, kids, app):
        await kids.job_in("completed", "second")

    async with works(other(side), node, app):
        assert (await node.job_in("completed", "p"))["returnvalue"] == 12
    assert len((await seen_alike(node, queue, "p")).completed) == 2


@pytest.mark.parametrize("adder", SIDES)
async def test_a_parent_does_not_wait_for_a_child_the_other_side_has_done(
    node: NodeQueue, kids: NodeQueue, app: App, queue: Queue, adder: str
) -> None:
    await kids.add("double", {"n": 4}, jobId="done")
    async with works(other(adder), kids, app):
        await kids.job_in("completed", "done")

    child = member("kids", "double", {"n": 9}, job_id="done")
    await add(adder, node, queue, member("mail", "sum", {"n": 1}, child, job_id="p"))

    async with works(other(adder), node, app):
        assert (await node.job_in("completed", "p"))["returnvalue"] == 9


# --- a child fails ----------------------------------------------------------------


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("flag", FLAGS, ids=str)
async def test_what_a_childs_failure_makes_of_its_parent(
    node: NodeQueue, kids: NodeQueue, app: App, queue: Queue, *, flag: OnFailure | None, side: str
) -> None:
    bad = member("kids", "giveUp", {"reason": "broken"}, job_id="bad", on_failure=flag)
    good = member("kids", "double", {"n": 2}, job_id="good")
    await add(other(side), node, queue, member("mail", "look", {}, bad, good, job_id="p"))
    bad_key, good_key = f"{app.prefix}:kids:bad", f"{app.prefix}:kids:good"

    async with works(side, kids, app):
        await kids.job_in("failed", "bad")
        await kids.job_in("completed", "good")

    children = await seen_alike(node, queue, "p")
    assert children.completed == {good_key: "4"}
    assert children.failed == ((bad_key,) if flag == "fail_parent" else ())
    assert children.pending == ((bad_key,) if flag is None else ())
    if flag is None:
        assert await queue.state("p") is JobState.WAITING_CHILDREN
        return
    async with works(other(side), node, app):
        if flag == "fail_parent":
            job = await node.job_in("failed", "p")
            assert job["failedReason"] == f"child {bad_key} failed"
            assert job.get("returnvalue") is None
            return
        job = await node.job_in("completed", "p")
    ignored = {} if flag == "remove" else {bad_key: "broken"}
    assert job["returnvalue"] == {"values": {good_key: 4}, "ignored": ignored}


@pytest.mark.parametrize("side", SIDES)
async def test_a_parent_goes_on_at_once_without_its_pending_children(
    node: NodeQueue, kids: NodeQueue, app: App, queue: Queue, side: str
) -> None:
    bad = member("kids", "giveUp", {"reason": "x"}, job_id="bad", on_failure="continue_parent")
    slow = member("kids", "double", {"n": 1}, options={"delay": 3_600_000})
    ours = member("kids", "double", {"n": 1}, options={"delay": "1h"})
    children = (bad, slow if side == "us" else ours)
    await add(other(side), node, queue, member("mail", "look", {}, *children, job_id="p"))

    async with works(side, kids, app):
        await kids.job_in("failed", "bad")

    assert await queue.state("p") is JobState.WAITING
    assert (await node("job", id="p"))["state"] == "waiting"


@pytest.mark.parametrize("side", SIDES)
async def test_a_failed_child_that_is_retried_counts_again(
    node: NodeQueue, kids: NodeQueue, app: App, queue: Queue, side: str
) -> None:
    child = member("kids", "flaky", {"who": "a"}, job_id="c", on_failure="ignore")
    second = member("kids", "double", {"n": 1}, job_id="d", options={"delay": 3_600_000})
    await node("flow", tree=as_node_has_it(member("mail", "look", {}, child, second, job_id="p")))
    async with works(side, kids, app):
        await kids.job_in("failed", "c")
        ignored = await queue.children("p")
        if side == "us":
            await kids("retry", id="c")
        else:
            await queue.sibling("kids").replay(["c"])
        await kids.job_in("completed", "c")

    children = await seen_alike(node, queue, "p")
    key = f"{app.prefix}:kids:c"
    assert ignored.ignored == {key: "not yet"}
    assert (children.ignored, children.completed) == ({}, {key: '"well"'})


@pytest.mark.parametrize("side", SIDES)
async def test_a_failure_climbs_from_grandchild_to_head(
    node: NodeQueue, kids: NodeQueue, app: App, queue: Queue, side: str
) -> None:
    leaf = member("mail", "giveUp", {"reason": "deep"}, job_id="leaf", on_failure="fail_parent")
    middle = member("kids", "look", {}, leaf, job_id="middle", on_failure="fail_parent")
    await add(side, node, queue, member("mail", "look", {}, middle, job_id="head"))

    async with works(side, kids, app), works(other(side), node, app):
        await node.job_in("failed", "leaf")
        job = await kids.job_in("failed", "middle")
        head = await node.job_in("failed", "head")

    assert job["failedReason"] == f"child {app.prefix}:mail:leaf failed"
    assert head["failedReason"] == f"child {app.prefix}:kids:middle failed"
    assert (await seen_alike(node, queue, "head")).failed == (f"{app.prefix}:kids:middle",)


@pytest.mark.parametrize("side", SIDES)
async def test_a_running_parent_fails_when_a_child_of_it_has_failed(
    node: NodeQueue, kids: NodeQueue, app: App, queue: Queue, redis: aioredis.Redis, *, side: str
) -> None:
    await queue.add("hold", {}, job_id="p", attempts=3)

    async with works(side, node, app):
        await node.job_in("active", "p")
        parent = Parent(queue=queue.ref, job_id="p", on_failure="fail_parent")
        child = await queue.sibling("kids").add_child(parent, "giveUp", {"reason": "x"})
        async with works(other(side), kids, app):
            await kids.job_in("failed", child.id)
        await redis.lpush(f"{app.prefix}-gate", "go")

        job = await node.job_in("failed", "p")

    assert job["attemptsMade"] == 1
    assert job.get("returnvalue") is None
    # Node's worker reports it, too, where it is the one that must not complete the parent.
    assert all("failed child" in error for error in await node("errors"))


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("state", ["delayed", "prioritized"])
async def test_a_released_parent_waits_where_its_options_say(
    node: NodeQueue, kids: NodeQueue, app: App, queue: Queue, *, side: str, state: str
) -> None:
    hour: Any = 3_600_000 if side == "us" else "1h"
    options = {"delay": hour} if state == "delayed" else {"priority": 5}
    child = member("kids", "double", {"n": 1}, job_id="c")
    tree = member("mail", "look", {}, child, job_id="p", options=options)
    await add(other(side), node, queue, tree)

    async with works(side, kids, app):
        await kids.job_in("completed", "c")

    job = await queue.job("p")
    assert job is not None
    assert (await node("job", id="p"))["state"] == job.state == state
    if job.due_at_ms is not None:
        assert job.due_at_ms - job.added_at_ms >= 3_600_000


@pytest.mark.parametrize("side", SIDES)
async def test_a_child_that_is_not_kept_leaves_its_result(
    node: NodeQueue, kids: NodeQueue, app: App, queue: Queue, side: str
) -> None:
    child = member("kids", "double", {"n": 4}, job_id="c", options={"removeOnComplete": True})
    ours = member("kids", "double", {"n": 4}, job_id="c", options={"keep_completed": False})
    tree = member("mail", "sum", {"n": 1}, child if side == "us" else ours, job_id="p")
    await add(other(side), node, queue, tree)

    async with works(side, kids, app), works(other(side), node, app):
        job = await node.job_in("completed", "p")

    assert job["returnvalue"] == 9
    assert await kids("job", id="c") is None


@pytest.mark.parametrize("side", SIDES)
async def test_a_child_whose_parent_has_gone_brings_nothing_back(
    node: NodeQueue, kids: NodeQueue, app: App, queue: Queue, redis: aioredis.Redis, *, side: str
) -> None:
    one = member("kids", "double", {"n": 1}, job_id="c", on_failure="ignore")
    two = member("kids", "giveUp", {"reason": "x"}, job_id="d", on_failure="fail_parent")
    await add(other(side), node, queue, member("mail", "look", {}, one, two, job_id="p"))
    await queue.remove(["p"], children=False)

    async with works(side, kids, app):
        await kids.job_in("completed", "c")
        await kids.job_in("failed", "d")

    assert [key async for key in redis.scan_iter(f"{app.prefix}:mail:p*")] == []
    assert sum((await node("counts")).values()) == 0


# --- a child or a parent goes -----------------------------------------------------


@pytest.mark.parametrize("side", SIDES)
async def test_a_parent_is_released_when_the_other_side_parts_its_child(
    node: NodeQueue, kids: NodeQueue, queue: Queue, side: str
) -> None:
    child = member("kids", "double", {"n": 1}, job_id="c")
    await add(other(side), node, queue, member("mail", "look", {}, child, job_id="p"))

    if side == "us":
        assert await queue.sibling("kids").detach("c")
        assert not await queue.sibling("kids").detach("c")
    else:
        assert await kids("removeChildDependency", id="c")

    assert (await node("job", id="p"))["state"] == "waiting"
    assert (await kids("job", id="c"))["state"] == "waiting"
    assert (await queue.children("p")).pending == ()


@pytest.mark.parametrize("side", SIDES)
async def test_a_parent_is_released_when_the_other_side_removes_its_child(
    node: NodeQueue, kids: NodeQueue, queue: Queue, side: str
) -> None:
    child = member("kids", "double", {"n": 1}, job_id="c")
    await add(other(side), node, queue, member("mail", "look", {}, child, job_id="p"))

    if side == "us":
        assert await queue.sibling("kids").remove(["c"]) == [Removal.REMOVED]
    else:
        await kids("remove", id="c")

    assert (await node("job", id="p"))["state"] == "waiting"
    assert await kids("job", id="c") is None


@pytest.mark.parametrize("side", SIDES)
async def test_a_family_goes_whole_when_the_other_side_removes_its_head(
    node: NodeQueue, kids: NodeQueue, queue: Queue, side: str
) -> None:
    leaf = member("mail", "double", {"n": 1}, job_id="leaf")
    tree = member("mail", "look", {}, member("kids", "look", {}, leaf, job_id="c"), job_id="p")
    await add(other(side), node, queue, tree)

    if side == "us":
        assert await queue.remove(["p"]) == [Removal.REMOVED]
    else:
        await node("remove", id="p")

    assert [await queue.job("p"), await queue.job("leaf"), await kids("job", id="c")] == [None] * 3
    assert sum((await node("counts")).values()) == sum((await kids("counts")).values()) == 0


async def test_node_drops_what_is_not_done_of_our_flow(
    node: NodeQueue, kids: NodeQueue, app: App, queue: Queue
) -> None:
    one, two = (member("kids", "double", {"n": n}, job_id=f"c{n}") for n in (1, 2))
    late = member("kids", "double", {"n": 3}, job_id="late", options={"delay": "1h"})
    await queue.add_flow(member("mail", "sum", {"n": 0}, one, two, late, job_id="p"))
    async with at_work(app, queues=("kids",)):
        await eventually(lambda: kids.has(completed=2))

    await node("dropUnprocessedChildren", id="p")

    assert await kids("job", id="late") is None
    async with at_work(app):
        assert (await node.job_in("completed", "p"))["returnvalue"] == 6
