"""Bull Board's own handlers on our jobs: what its pages show, what its buttons do."""

from __future__ import annotations

import json
from typing import Any, cast

import pytest
import redis.asyncio as aioredis

from tests.conftest import eventually
from tests.interop.bullmq import NodeQueue
from tests.interop.tasks import at_work, sample
from tickbird import App, Every, FlowNode, JobState, Queue

pytestmark = pytest.mark.interop

LONG_AGO_MS = 1_600_000_000_000
QUEUE = "/api/queues/:queueName"
JOB = f"{QUEUE}/:jobId"


class Board:
    """Requests as Bull Board's pages send them."""

    def __init__(self, node: NodeQueue) -> None:
        self._node = node

    async def get(self, route: str, job_id: str = "", **query: str) -> Any:
        return (await self._ask("get", route, job_id, query=query))["body"]

    async def put(self, route: str, job_id: str = "", **more: Any) -> None:
        answer = await self._ask("put", route, job_id, **more)
        assert answer.get("status", 200) < 300, answer

    async def patch(self, route: str, job_id: str, body: Any) -> None:
        answer = await self._ask("patch", route, job_id, body=body)
        assert answer.get("status", 200) < 300, answer

    async def post(self, route: str, body: Any) -> Any:
        answer = await self._ask("post", route, "", body=body)
        assert answer.get("status", 200) < 300, answer
        return answer["body"]

    async def page(self, status: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """The queue `mail` and its jobs of a status."""
        shown = await self.get("/api/queues", activeQueue="mail", status=status, page="1")
        (queue,) = [queue for queue in shown["queues"] if queue["name"] == "mail"]
        return queue, queue["jobs"]

    async def _ask(
        self, method: str, route: str, job_id: str, *, params: dict[str, str] | None = None,
        **more: Any,
    ) -> Any:  # fmt: skip
        params = {"queueName": "mail", **({"jobId": job_id} if job_id else {}), **(params or {})}
        queues = ["mail", "kids"]
        return await self._node(
            "board", queues=queues, method=method, route=route, params=params, **more
        )


@pytest.fixture
def board(node: NodeQueue) -> Board:
    return Board(node)


async def failed_jobs(node: NodeQueue, app: App, queue: Queue, n: int) -> list[str]:
    """Jobs that failed with us once, and succeed when they are run again."""
    handles = await queue.add_many(
        [("flaky", {"who": str(i)}, {"attempts": 1, "priority": i}) for i in range(n)]
    )
    async with at_work(app, name="beta"):
        await eventually(lambda: node.has(failed=n))
    return [handle.id for handle in handles]


# --- what it shows ------------------------------------------------------------------


async def test_it_counts_our_queues(board: Board, node: NodeQueue, app: App, queue: Queue) -> None:
    await failed_jobs(node, app, queue, 2)
    await queue.add("echo", delay="1h")
    await queue.add("echo", priority=1)
    await queue.add_flow(
        FlowNode(queue="mail", name="look", children=[FlowNode(queue="kids", name="echo")])
    )
    await queue.set_global_concurrency(7)
    await queue.pause()

    shown = await board.get("/api/queues")

    mail, kids = shown["queues"]
    counts = {state: n for state, n in mail["counts"].items() if n}
    assert counts == {"failed": 2, "delayed": 1, "prioritized": 1, "waiting-children": 1}
    assert sum(kids["counts"].values()) == 1
    assert (mail["isPaused"], mail["globalConcurrency"]) == (True, 7)


async def test_it_shows_why_a_job_failed(
    board: Board, node: NodeQueue, app: App, queue: Queue
) -> None:
    (job_id,) = await failed_jobs(node, app, queue, 1)

    _, (row,) = await board.page("failed")
    shown = await board.get(JOB, job_id)

    assert shown == {"job": row, "status": "failed"}
    assert (row["name"], row["data"], row["isFailed"]) == ("flaky", {"who": "0"}, True)
    assert (row["failedReason"], row["processedBy"]) == ("not yet", "beta")
    assert row["stacktrace"][0].endswith("RuntimeError: not yet")
    assert row["timestamp"] <= row["processedOn"] <= row["finishedOn"]


async def test_it_shows_result_progress_and_log(
    board: Board, node: NodeQueue, app: App, queue: Queue
) -> None:
    told = await queue.add("tell", {"to": "a"})
    result = await queue.add("echo", {"n": [1, None]})
    async with at_work(app):
        await eventually(lambda: node.has(completed=2))

    _, rows = await board.page("completed")
    by_id = {row["id"]: row for row in rows}

    assert by_id[told.id]["progress"] == {"done": 1, "of": 2}
    assert by_id[result.id]["returnValue"] == {"n": [1, None]}
    assert not by_id[result.id]["isFailed"]
    assert await board.get(f"{JOB}/logs", told.id) == ["first line", "second line"]


async def test_it_shows_the_tree_of_our_flow(board: Board, queue: Queue) -> None:
    child = FlowNode(queue="kids", name="echo", options={"job_id": "c"})
    await queue.add_flow(
        FlowNode(queue="mail", name="look", options={"job_id": "p"}, children=[child])
    )

    root = (await board.get(f"{JOB}/flow", "p"))["flowRoot"]

    assert (root["id"], root["state"]) == ("p", "waiting-children")
    (leaf,) = root["children"]
    assert (leaf["id"], leaf["queueName"], leaf["state"]) == ("c", "kids", "waiting")
    assert root["dependencies"]["unprocessed"] == 1


async def test_it_lists_our_schedules(board: Board, queue: Queue) -> None:
    schedule = await queue.schedules.upsert("s", "echo", {"a": 1}, when=Every("1h"), limit=5)

    (shown,) = (await board.get("/api/job-schedulers"))["schedulers"]

    assert (shown["id"], shown["name"], shown["every"]) == ("s", "echo", 3_600_000)
    assert shown["next"] == schedule.next_run_at_ms
    assert (shown["template"]["data"], shown["limit"]) == ({"a": 1}, 5)


async def test_it_sees_our_workers(board: Board, app: App) -> None:
    async with at_work(app):

        async def is_seen() -> Any:
            return (await board.get(f"{QUEUE}/workers"))["workers"]

        (worker,) = cast("list[Any]", await eventually(is_seen))
        mail, _ = await board.page("latest")

    assert mail["hasWorkers"] is True
    assert worker["name"].startswith("tb-")


async def test_it_shows_our_minutes_limit_and_server(
    board: Board, node: NodeQueue, app: App, queue: Queue
) -> None:
    await queue.set_global_rate_limit("100/s")
    await queue.add_many([("double", {"n": n}) for n in range(3)])
    async with at_work(app, metrics_minutes=60):
        await eventually(lambda: node.has(completed=3))

    metrics = await board.get(f"{QUEUE}/metrics")
    limit = await board.get(f"{QUEUE}/rate-limit")
    stats = await board.get("/api/redis/stats")

    assert int(metrics["completed"]["meta"]["count"]) == 3
    assert limit["rateLimit"] == {"max": 100, "duration": 1_000}
    assert stats["version"]


# --- what it does -------------------------------------------------------------------


async def test_its_retry_runs_a_failed_job_of_ours_again(
    board: Board, node: NodeQueue, app: App, queue: Queue
) -> None:
    (job_id,) = await failed_jobs(node, app, queue, 1)

    await board.put(f"{JOB}/retry", job_id, params={"queueStatus": "failed"})

    assert await queue.state(job_id) is JobState.WAITING
    async with at_work(app):
        assert (await node.job_in("completed", job_id))["returnvalue"] == "well"


async def test_its_retry_all_runs_all_that_failed_again(
    board: Board, node: NodeQueue, app: App, queue: Queue
) -> None:
    ids = await failed_jobs(node, app, queue, 5)

    await board.put(f"{QUEUE}/retry/:queueStatus", params={"queueStatus": "failed"})

    assert (await sample(app)).counts[JobState.FAILED] == 0
    async with at_work(app):
        jobs = [await node.job_in("completed", job_id) for job_id in ids]
    assert [job["returnvalue"] for job in jobs] == ["well"] * 5


async def test_it_promotes_one_delayed_job_and_all(board: Board, queue: Queue) -> None:
    first, second, third = await queue.add_many([("echo", {}, {"delay": "1h"}) for _ in range(3)])

    await board.put(f"{JOB}/promote", first.id)
    assert [await h.state() for h in (first, second)] == [JobState.WAITING, JobState.DELAYED]
    await board.put(f"{QUEUE}/promote")

    assert [await h.state() for h in (second, third)] == [JobState.WAITING] * 2


async def test_it_cleans_what_failed_long_ago(
    board: Board, node: NodeQueue, app: App, queue: Queue, redis: aioredis.Redis
) -> None:
    old, new = await failed_jobs(node, app, queue, 2)
    await redis.zadd(f"{app.prefix}:mail:failed", {old: LONG_AGO_MS})

    await board.put(f"{QUEUE}/clean/:queueStatus", params={"queueStatus": "failed"})

    assert await queue.job(old) is None
    assert await queue.state(new) is JobState.FAILED


async def test_its_pause_and_resume_hold_our_workers(
    board: Board, node: NodeQueue, app: App, queue: Queue
) -> None:
    await board.put(f"{QUEUE}/pause")
    assert (await sample(app)).paused
    async with at_work(app):
        handle = await queue.add("double", {"n": 1})
        await board.put(f"{QUEUE}/resume")
        await node.job_in("completed", handle.id)

    assert not (await sample(app)).paused
    kinds = [event for event, _ in await node.heard(completed=1)]
    assert kinds.index("resumed") < kinds.index("active")


async def test_it_changes_data_delay_and_priority_of_our_jobs(
    board: Board, queue: Queue, node: NodeQueue, redis: aioredis.Redis
) -> None:
    delayed = await queue.add("double", {"n": 1}, delay="1h")
    waiting = await queue.add("double", {"n": 1})

    await board.patch(f"{JOB}/update-data", delayed.id, {"jobData": {"n": 5}})
    seconds, _ = await redis.time()
    due_ms = (seconds + 7_200) * 1_000
    await board.patch(f"{JOB}/delay", delayed.id, {"runAt": due_ms})
    await board.patch(f"{JOB}/priority", waiting.id, {"priority": 3})

    job = await delayed.job()
    assert job is not None
    assert job.due_at_ms is not None
    assert json.loads(job.data) == {"n": 5}
    assert abs(job.due_at_ms - due_ms) < 1_000
    assert await waiting.state() is JobState.PRIORITIZED
    assert (await node("job", id=waiting.id))["priority"] == 3


async def test_a_job_added_on_its_page_is_run_by_us(
    board: Board, node: NodeQueue, app: App
) -> None:
    added = await board.post(
        f"{QUEUE}/add", {"name": "double", "data": {"n": 4}, "options": {"attempts": 2}}
    )

    async with at_work(app):
        job = await node.job_in("completed", str(added["job"]["id"]))
    assert job["returnvalue"] == 8


async def test_its_limits_are_ours(board: Board, queue: Queue, redis: aioredis.Redis) -> None:
    await board.put(f"{QUEUE}/concurrency", body={"concurrency": 2})
    await board.put(f"{QUEUE}/rate-limit", body={"max": 5, "duration": 1_000})
    await queue.rate_limit("1h")

    meta = await redis.hgetall(f"{queue.ref.prefix}:mail:meta")
    await board.put(f"{QUEUE}/rate-limit/release")

    assert (meta["concurrency"], meta["max"], meta["duration"]) == ("2", "5", "1000")
    assert await redis.exists(f"{queue.ref.prefix}:mail:limiter") == 0


async def test_it_runs_and_removes_our_schedule(
    board: Board, node: NodeQueue, app: App, queue: Queue
) -> None:
    await queue.schedules.upsert("s", "echo", {"a": 1}, when=Every("1h"))
    async with at_work(app):
        await eventually(lambda: node.has(completed=1))
        await board.put(f"{QUEUE}/job-schedulers/:schedulerId/run", params={"schedulerId": "s"})
        await eventually(lambda: node.has(completed=2))

    await board.put(f"{QUEUE}/job-schedulers/:schedulerId/remove", params={"schedulerId": "s"})

    assert await queue.schedules.list() == []
    results = [job["returnvalue"] for job in await node("jobs", types=["completed"])]
    assert results == [{"a": 1}] * 2


async def test_it_removes_one_job_empties_and_destroys_a_queue(
    board: Board, node: NodeQueue, app: App, queue: Queue, redis: aioredis.Redis
) -> None:
    (failed,) = await failed_jobs(node, app, queue, 1)
    await queue.add_many([("echo", {}) for _ in range(3)])

    await board.put(f"{JOB}/clean", failed)
    assert await queue.job(failed) is None
    await board.put(f"{QUEUE}/empty")
    assert (await sample(app)).depth == 0
    await queue.pause()
    await board.put(f"{QUEUE}/obliterate")

    left = [key async for key in redis.scan_iter(f"{app.prefix}:mail:*")]
    assert left == []
    again = await queue.add("double", {"n": 1})
    async with at_work(app):
        await node.job_in("completed", again.id)
