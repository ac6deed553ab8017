from __future__ import annotations

from typing import Any

import pytest

from tests.factories import HandWorker
from tickbird import FlowNode, InvalidOption, JobNotFound, JobState, Parent, Queue


def child(name: str = "child", **more: Any) -> FlowNode:
    return FlowNode(queue="mail", name=name, **more)


def parent(*children: FlowNode, **more: Any) -> FlowNode:
    return FlowNode(queue="mail", name="parent", children=children, **more)


async def relation(queue: Queue, job_id: str, kind: str) -> Any:
    key = f"{queue._keys.job(job_id)}:{kind}"
    reader = queue._connection.reader
    reads = {
        "hash": reader.hgetall,
        "set": reader.smembers,
        "zset": lambda k: reader.zrange(k, 0, -1),
    }
    type_ = (await reader.type(key)).decode()
    return await reads[type_](key) if type_ in reads else None


async def test_a_parent_waits_for_its_children_and_then_runs_first(queue: Queue) -> None:
    flow = await queue.add_flow(parent(child(data=1), child(data=2)))
    await queue.add("other")
    worker = HandWorker(queue)

    assert await flow.job.state() is JobState.WAITING_CHILDREN
    first, second = await worker.take(2)
    await worker.end(first, text='"a"')
    assert await flow.job.state() is JobState.WAITING_CHILDREN
    await worker.end(second, text='"b"')
    next_job = await worker.take_one()

    assert next_job.id.decode() == flow.job.id
    results = await relation(queue, flow.job.id, "processed")
    assert sorted(results.values()) == [b'"a"', b'"b"']


async def test_a_flow_of_any_depth_and_over_queues_is_added_whole(queue: Queue) -> None:
    deep = child("leaf")
    for level in range(20):
        deep = FlowNode(queue=f"q{level % 3}", name=f"n{level}", children=[deep])
    flow = await queue.add_flow(parent(deep))

    levels = 0
    node = flow
    while node.children:
        assert await node.job.state() is JobState.WAITING_CHILDREN
        (node,) = node.children
        levels += 1
    assert levels == 21
    assert await node.job.state() is JobState.WAITING


@pytest.mark.parametrize(
    ("on_failure", "state", "kept_in"),
    [
        ("fail_parent", JobState.WAITING, "unsuccessful"),
        ("continue_parent", JobState.WAITING, "failed"),
        ("ignore", JobState.WAITING_CHILDREN, "failed"),
        ("remove", JobState.WAITING_CHILDREN, None),
        (None, JobState.WAITING_CHILDREN, None),
    ],
)
async def test_a_childs_failure_does_to_its_parent_what_its_flag_says(
    queue: Queue, on_failure: Any, state: JobState, kept_in: str | None
) -> None:
    flow = await queue.add_flow(parent(child(on_failure=on_failure), child()))
    worker = HandWorker(queue)
    failing, other = await worker.take(2)

    await worker.end(failing, "failed", text="broke")

    key = queue._keys.job(failing.id.decode()).encode()
    assert await flow.job.state() is state
    assert key in (await relation(queue, flow.job.id, kept_in)) if kept_in else True
    pending = await relation(queue, flow.job.id, "dependencies")
    assert (key in pending) == (on_failure is None)
    await worker.end(other)
    expected = JobState.WAITING_CHILDREN if on_failure is None else JobState.WAITING
    assert await flow.job.state() is expected
    job = await flow.job.job()
    assert job is not None
    assert (job.deferred_failure is not None) == (on_failure == "fail_parent")


async def test_a_failure_that_fails_its_parent_climbs_the_tree(queue: Queue) -> None:
    leaf = child(on_failure="fail_parent")
    middle = FlowNode(queue="mail", name="middle", children=[leaf], on_failure="fail_parent")
    flow = await queue.add_flow(parent(middle))
    worker = HandWorker(queue)

    await worker.end(await worker.take_one(), "failed", text="broke")
    taken = await worker.take_one()
    assert (
        taken.deferred_failure
        == f"child {queue._keys.job(flow.children[0].children[0].job.id)} failed"
    )
    await worker.end(taken, "failed", text=taken.deferred_failure)
    top = await worker.take_one()

    assert top.id.decode() == flow.job.id
    assert top.deferred_failure is not None


async def test_a_replayed_child_is_pending_again(queue: Queue) -> None:
    flow = await queue.add_flow(parent(child(on_failure="ignore"), child()))
    worker = HandWorker(queue)
    failing, other = await worker.take(2)
    await worker.end(failing, "failed")

    await queue.replay([failing.id.decode()])
    await worker.end(other)

    assert await flow.job.state() is JobState.WAITING_CHILDREN
    await worker.end(await worker.take_one())
    assert await flow.job.state() is JobState.WAITING


async def test_a_running_job_can_wait_for_children_it_adds(queue: Queue) -> None:
    handle = await queue.add("parent")
    worker = HandWorker(queue)
    job = await worker.take_one()
    await queue.add_child(Parent(queue=queue.ref, job_id=handle.id), "kid")

    refused = await worker.end(job, "completed")
    moved = await worker.end(job, "waiting_children")

    assert (refused, moved) == (4, 0)
    assert await handle.state() is JobState.WAITING_CHILDREN
    await worker.end(await worker.take_one())
    assert await handle.state() is JobState.WAITING


async def test_waiting_for_no_children_goes_on_at_once(queue: Queue) -> None:
    handle = await queue.add("parent")
    worker = HandWorker(queue)

    await worker.end(await worker.take_one(), "waiting_children")

    assert await handle.state() is JobState.WAITING


async def test_a_child_of_nobody_is_refused(queue: Queue) -> None:
    with pytest.raises(JobNotFound, match="there is no job"):
        await queue.add_child(Parent(queue=queue.ref, job_id="gone"), "kid")
    first = await queue.add_flow(parent(child(options={"job_id": "kid-1"})))
    second = await queue.add("parent")

    with pytest.raises(InvalidOption, match="is a child of"):
        await queue.add_child(Parent(queue=queue.ref, job_id=second.id), "kid", job_id="kid-1")
    assert await first.children[0].job.state() is JobState.WAITING


async def test_a_child_that_is_done_already_counts_as_done(queue: Queue) -> None:
    await queue.add("kid", job_id="kid-1")
    worker = HandWorker(queue)
    await worker.end(await worker.take_one(), text='"early"')

    flow = await queue.add_flow(parent(child(options={"job_id": "kid-1"})))

    assert await flow.job.state() is JobState.WAITING
    assert list((await relation(queue, flow.job.id, "processed")).values()) == [b'"early"']


async def test_a_flow_that_cannot_be_is_refused_whole(queue: Queue) -> None:
    with pytest.raises(InvalidOption, match="dedup cannot be used"):
        await queue.add_flow(parent(child(options={"dedup": "x"})))
    with pytest.raises(InvalidOption, match="at most 1,000 jobs"):
        await queue.add_flow(parent(*[child() for _ in range(1_000)]))
    with pytest.raises(InvalidOption, match="on_failure must be one of"):
        child(on_failure="explode")
    with pytest.raises(InvalidOption, match="belongs to queue"):
        await queue.add_flow(FlowNode(queue="else", name="x"))

    assert await queue._connection.reader.keys(f"*{queue.ref.prefix}:*") == []


async def test_children_are_told_by_what_has_become_of_them(queue: Queue) -> None:
    kinds: list[Any] = ["ignore", "fail_parent", None, None]
    flow = await queue.add_flow(parent(*[child(on_failure=kind) for kind in kinds]))
    worker = HandWorker(queue)
    ignored, failed, done, _ = await worker.take(4)
    await worker.end(ignored, "failed", text="broke")
    await worker.end(done, text="7")
    await worker.end(failed, "failed", text="broke")

    children = await queue.children(flow.job.id)

    keys = [queue._keys.job(node.job.id) for node in flow.children]
    assert children.ignored == {keys[0]: "broke"}
    assert children.failed == (keys[1],)
    assert children.completed == {keys[2]: "7"}
    assert (children.pending, children.is_whole) == ((keys[3],), True)


async def test_a_detached_child_is_waited_for_no_longer(queue: Queue) -> None:
    flow = await queue.add_flow(parent(child(), child()))
    first, second = (node.job.id for node in flow.children)

    assert await queue.detach(first)
    assert not await queue.detach(first)
    assert await flow.job.state() is JobState.WAITING_CHILDREN
    await queue.detach(second)
    assert await flow.job.state() is JobState.WAITING


async def test_pending_children_are_removed_and_the_parent_goes_on(queue: Queue) -> None:
    other = FlowNode(queue="other", name="c")
    flow = await queue.add_flow(parent(child(), child(), other))
    worker = HandWorker(queue)
    running = await worker.take_one()

    assert await queue.remove_pending_children(flow.job.id) == 2
    assert await flow.job.state() is JobState.WAITING_CHILDREN
    await worker.end(running)

    assert await flow.job.state() is JobState.WAITING
    assert await flow.children[2].job.state() is JobState.UNKNOWN
    assert await queue.remove_pending_children(flow.job.id) == 0
