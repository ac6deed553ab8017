"""What a task may do with its own job, and what others may do to it while it runs."""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any

import pytest

from tests.conftest import eventually, running
from tests.integration import steered_tasks
from tests.integration.test_worker import finished
from tickbird import (
    App,
    Backoff,
    Context,
    InvalidOption,
    JobFailed,
    JobNotFound,
    JobState,
    JobTimeout,
    Outcome,
    Postpone,
    PutBack,
    RateLimited,
    Retry,
    WaitForChildren,
    Worker,
)


async def test_a_task_reports_progress_logs_and_new_data(app: App) -> None:
    @app.task()
    async def work(ctx: Context, n: int) -> str:
        await ctx.progress({"done": n})
        await ctx.log("one", "two")
        await ctx.update_data({"n": n + 1})
        return f"{ctx.name} {ctx.attempt}/{ctx.attempts} on {ctx.queue.name}"

    async with running(Worker(app)):
        job = await finished(await work.delay(1))

    assert job.result == '"work 1/3 on default"'
    assert (job.progress, job.data, job.logs) == ('{"done":1}', '{"n":2}', ("one", "two"))


async def test_a_sync_task_has_the_same_by_blocking_calls(app: App) -> None:
    @app.task()
    def work(ctx: Context) -> None:
        ctx.sync.progress(50)
        ctx.sync.log("from a thread")

    async with running(Worker(app)):
        job = await finished(await work.delay())

    assert (job.progress, job.logs) == ("50", ("from a thread",))


async def test_a_tracers_text_reaches_the_task_over_retries(app: App) -> None:
    seen: list[str | None] = []

    @app.task(retry=Retry(2, Backoff("fixed", 0)))
    async def work(ctx: Context) -> None:
        seen.append(ctx.telemetry)
        if len(seen) == 1:
            raise ValueError("again")

    trace = '{"traceparent":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}'
    async with running(Worker(app)):
        await finished(await work.options(telemetry=trace).delay())

    assert seen == [trace, trace]


async def test_only_the_newest_log_lines_stay(app: App) -> None:
    @app.task()
    async def work(ctx: Context) -> None:
        for n in range(10):
            await ctx.log(str(n))

    async with running(Worker(app)):
        job = await finished(await work.options(keep_logs=3).delay())

    assert job.logs == ("7", "8", "9")


async def test_an_attempt_that_lost_its_lock_cannot_report(app: App) -> None:
    said: list[str] = []

    @app.task()
    async def work(ctx: Context) -> None:
        await app.connection.reader.set(f"{app.prefix}:default:{ctx.job_id}:lock", "tb:other:1:1")
        for write in (ctx.progress(1), ctx.log("x"), ctx.update_data({})):
            try:
                await write
            except Exception as error:  # noqa: BLE001
                said.append(type(error).__name__)

    handle = await work.delay()
    async with running(Worker(app)):

        async def tried() -> bool:
            return len(said) == 3

        await eventually(tried)
    job = await handle.job()

    assert said == ["LockLost"] * 3
    assert job is not None
    assert (job.progress, job.logs) == (None, ())


async def test_postponing_and_putting_back_spend_no_attempt(app: App) -> None:
    runs: list[str] = []

    @app.task(retry=1)
    async def work() -> str:
        runs.append("run")
        if len(runs) == 1:
            raise Postpone("20ms")
        if len(runs) == 2:
            raise PutBack
        return "done"

    async with running(Worker(app)):
        job = await finished(await work.delay())

    assert (job.result, job.attempts_made, job.attempts_started) == ('"done"', 1, 3)
    (sample,) = await app.inspector.sample([job.queue])
    assert sample.stats.attempts() == 1


async def test_a_task_can_slow_down_its_whole_queue(app: App) -> None:
    starts: list[float] = []

    @app.task(retry=1)
    async def work() -> None:
        starts.append(time.monotonic())
        if len(starts) == 1:
            raise RateLimited("400ms")

    handles = [await work.delay() for _ in range(3)]
    async with running(Worker(app, concurrency=1, rate_limit="100/s")):
        for handle in handles:
            await finished(handle)

    assert len(starts) == 4
    assert starts[1] - starts[0] >= 0.39


async def test_a_workers_rate_limit_bounds_starts_in_a_window(app: App) -> None:
    starts: list[float] = []

    @app.task()
    async def work() -> None:
        starts.append(time.monotonic())

    handles = [await work.delay() for _ in range(9)]
    async with running(Worker(app, rate_limit="4/s")):
        for handle in handles:
            await finished(handle)

    assert starts[4] - starts[0] >= 0.9
    assert starts[8] - starts[4] >= 0.9


async def test_a_task_waits_for_children_it_adds(app: App) -> None:
    @app.task()
    async def child(n: int) -> int:
        return n * n

    @app.task()
    async def parent(ctx: Context) -> int:
        results = await ctx.children_results()
        if not results:
            for n in (2, 3):
                await ctx.add_child("child", {"n": n}, job_id=f"{ctx.job_id}-part-{n}")
            raise WaitForChildren
        return sum(results.values())

    async with running(Worker(app)):
        assert await (await parent.options(job_id="sum").delay()).result("10s") == 13


async def test_returning_with_children_pending_is_a_failure(app: App) -> None:
    @app.task(retry=1)
    async def careless(ctx: Context) -> None:
        await ctx.add_child("nobody", {}, queue="elsewhere")

    async with running(Worker(app)):
        job = await finished(await careless.delay())

    assert (job.state, job.error) == (
        JobState.FAILED,
        "the job returned while its children are pending",
    )


async def test_a_result_is_pushed_and_a_failure_raised(app: App) -> None:
    @app.task(retry=1)
    async def work(n: int) -> int:
        if n < 0:
            raise ValueError("negative")
        return n + 1

    queue = app.queue("default")
    async with running(Worker(app)):
        handles = [await work.delay(n) for n in range(20)]
        results = await asyncio.gather(*(handle.result("10s") for handle in handles))
        with pytest.raises(JobFailed, match="negative"):
            await (await work.delay(-1)).result("10s")
        gone = await work.options(keep_completed=False).delay(5)
        assert await gone.result("10s") == 6 or gone.created
        with pytest.raises(JobNotFound):
            await queue.result("no-such-job", "5s")
    late = await work.delay(7)
    with pytest.raises(JobTimeout, match=r"has not finished within 0\.05 s"):
        await late.result("50ms")

    assert results == list(range(1, 21))


@pytest.mark.parametrize("delay", ["0s", "1h"])
async def test_a_job_that_waits_can_be_cancelled(app: App, delay: str) -> None:
    @app.task()
    async def work() -> None: ...

    handle = await work.options(delay=delay).delay()

    assert await handle.cancel("not wanted any more")
    assert not await handle.cancel()
    job = await handle.job()
    (sample,) = await app.inspector.sample([handle.queue])
    assert job is not None
    assert (job.state, job.error, job.attempts_made) == (JobState.FAILED, "not wanted any more", 0)
    assert sample.stats.tasks["work"].dead_lettered == {"cancelled": 1}
    assert sample.stats.attempts() == 0


async def test_a_running_job_is_cancelled_from_outside(app: App) -> None:
    started, stopped = asyncio.Event(), asyncio.Event()

    @app.task(retry=5)
    async def forever() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    async with running(Worker(app)):
        handle = await forever.delay()
        await asyncio.wait_for(started.wait(), 10)
        other = App("elsewhere", redis=app.connection.url, prefix=app.prefix)
        assert await other.queue("default").cancel(handle.id, "by hand")
        job = await finished(handle)
        await other.aclose()

    assert stopped.is_set()
    assert (job.state, job.error, job.attempts_made) == (JobState.FAILED, "by hand", 1)


async def test_a_thread_is_interrupted_by_a_cancel_and_by_its_timeout(app: App) -> None:
    reached: list[str] = []

    @app.task(retry=1, timeout="300ms")
    def spin(name: str) -> None:
        reached.append(name)
        while True:
            time.sleep(0.01)

    @app.task(retry=1)
    def quick() -> str:
        return "fine"

    async with running(Worker(app, threads=1)):
        slow = await finished(await spin.delay("a"))
        after = await finished(await quick.delay())

    assert (slow.state, slow.error) == (JobState.FAILED, "the attempt ran longer than 300 ms")
    assert after.result == '"fine"'


async def test_an_async_task_past_its_timeout_is_tried_again(app: App) -> None:
    runs: list[int] = []

    @app.task(retry=Retry(2, Backoff("fixed", 0)), timeout="100ms")
    async def slow() -> None:
        runs.append(1)
        await asyncio.Event().wait()

    async with running(Worker(app)):
        job = await finished(await slow.delay())

    assert len(runs) == 2
    assert job.error == "the attempt ran longer than 100 ms"


async def test_tasks_run_in_processes_of_their_own(redis_url: str, prefix: str) -> None:
    app = App("children", redis=redis_url, prefix=prefix)
    app.tasks = dict(steered_tasks.app.tasks)
    queue = app.queue("default")
    async with running(Worker(app, concurrency=2)):
        first = await (await queue.add("pid_of", {"n": 5})).result("20s")
        second = await (await queue.add("pid_of", {"n": 6})).result("20s")
        failed = await finished(await queue.add("fail", {"how": "error"}))
        refused = await finished(await queue.add("fail", {"how": "refuse"}, attempts=5))
        died = await finished(await queue.add("fail", {"how": "die"}))
        killed = await finished(await queue.add("hang", {}, timeout="300ms"))

    assert first[0] == 5
    assert first[1] == second[1] != os.getpid()
    assert failed.error == "broke in the child"
    assert "in fail" in failed.stacktraces[0]
    assert (refused.error, refused.attempts_made) == ("not in this process", 1)
    assert "ended with code 7" in str(died.error)
    assert killed.error == "the attempt ran longer than 300 ms"
    await app.aclose()


async def test_a_task_decides_which_errors_are_worth_another_attempt(app: App) -> None:
    runs: dict[str, int] = {"odd": 0, "even": 0}
    asked: list[tuple[int, str]] = []

    def own(attempt: int, error: BaseException) -> float | None:
        asked.append((attempt, str(error)))
        return 0.005 if attempt < 3 else None

    @app.task(retry=Retry(4, Backoff("fixed", 0), on=(OSError,), give_up=(FileNotFoundError,)))
    async def picky(how: str) -> None:
        runs[how] += 1
        raise (FileNotFoundError if how == "odd" else PermissionError)(how)

    @app.task(retry=Retry(10, own))
    async def own_backoff() -> None:
        raise ValueError("again")

    async with running(Worker(app)):
        await finished(await picky.delay("odd"))
        await finished(await picky.delay("even"))
        job = await finished(await own_backoff.delay())

    assert runs == {"odd": 1, "even": 4}
    assert [attempt for attempt, _ in asked] == [1, 2, 3]
    assert job.attempts_made == 3


async def test_a_job_started_too_often_fails_without_running(app: App) -> None:
    runs: list[int] = []

    @app.task(retry=1)
    async def work() -> None:
        runs.append(1)
        raise PutBack

    async with running(Worker(app, max_started=3)):
        job = await finished(await work.delay())

    assert len(runs) == 3
    assert "at most 3 are allowed" in str(job.error)


async def test_bullmqs_minute_counts_are_kept_where_asked_for(app: App) -> None:
    @app.task(retry=1)
    async def work(n: int) -> None:
        if n == 0:
            raise ValueError

    async with running(Worker(app, metrics_minutes=60)):
        handles = [await work.delay(n) for n in range(4)]
        for handle in handles:
            await finished(handle)

    reader, base = app.connection.reader, f"{app.prefix}:default:metrics"
    assert await reader.hget(f"{base}:completed", "count") == b"3"
    assert await reader.hget(f"{base}:failed", "count") == b"1"
    (sample,) = await app.inspector.sample([app.queue("default").ref])
    assert sample.stats.attempts(Outcome.FAILED) == 1


def test_a_wrong_executor_is_refused(app: App) -> None:
    async def coroutine() -> None: ...
    def function() -> None: ...
    def wants(ctx: Context) -> None: ...

    for wrong, executor in ((coroutine, "thread"), (function, "async")):
        with pytest.raises(InvalidOption, match="executor must be"):
            app.task(executor=executor)(wrong)  # type: ignore[call-overload]
    with pytest.raises(InvalidOption, match="runs in another process"):
        app.task(executor="process")(function)
    with pytest.raises(InvalidOption, match="takes no Context"):
        app.task(executor="process")(wants)


async def test_an_idempotency_key_finds_the_first_job_also_after_it_has_finished(app: App) -> None:
    @app.task()
    async def pay(order: str) -> str:
        return order

    once: Any = pay.options(idempotency_key="order-7", idempotency_ttl="1h")
    async with running(Worker(app)):
        first = await once.delay("order-7")
        await finished(first)
        again = await once.delay("order-7")

    assert (again.id, again.created) == (first.id, False)
    assert await again.result("5s") == "order-7"
