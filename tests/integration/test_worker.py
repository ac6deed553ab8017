from __future__ import annotations

import asyncio
import subprocess
import sys
import threading

import pytest

from tests.conftest import eventually, redis_server, running
from tickbird import (
    App,
    Backoff,
    DoNotRetry,
    InvalidOption,
    Job,
    JobHandle,
    JobState,
    Keep,
    Queue,
    Retry,
    RetryLater,
    UnsupportedServer,
    Worker,
)


async def finished(handle: JobHandle[object]) -> Job:
    async def check() -> bool:
        return await handle.state() in (JobState.COMPLETED, JobState.FAILED)

    await eventually(check)
    job = await handle.job()
    assert job is not None
    return job


async def test_async_and_sync_tasks_run_and_return(app: App) -> None:
    threads: list[str] = []

    @app.task()
    async def add(a: int, b: int = 1) -> int:
        return a + b

    @app.task()
    def double(n: int) -> int:
        threads.append(threading.current_thread().name)
        return n * 2

    async with running(Worker(app)):
        added = await finished(await add.delay(2, b=3))
        doubled = await finished(await double.delay(4))

    assert (added.result, doubled.result) == ("5", "8")
    assert threads[0].startswith("tickbird-job")
    assert await add(1) == 2  # still a function


async def test_a_task_gets_its_annotated_types(app: App) -> None:
    seen: list[object] = []

    @app.task()
    async def at(when: dict[str, list[int]], who: str | None = None) -> None:
        seen.append((when, who))

    async with running(Worker(app)):
        await finished(await at.delay({"a": [1]}))

    assert seen == [({"a": [1]}, None)]


async def test_a_failing_task_is_tried_as_often_as_allowed(app: App) -> None:
    runs: list[int] = []

    @app.task(retry=Retry(3, Backoff("fixed", "5ms", jitter=0)))
    async def fail() -> None:
        runs.append(1)
        raise ValueError("no luck")

    async with running(Worker(app)):
        job = await finished(await fail.delay())

    assert (len(runs), job.state, job.error, job.attempts_made) == (
        3,
        JobState.FAILED,
        "no luck",
        3,
    )
    assert len(job.stacktraces) == 3
    assert "in fail" in job.stacktraces[0]
    assert "tickbird/attempt.py" not in job.stacktraces[0]


async def test_a_task_can_order_or_refuse_its_retry(app: App) -> None:
    runs: list[str] = []

    @app.task(retry=5)
    async def later() -> str:
        runs.append("later")
        if len(runs) == 1:
            raise RetryLater("10ms", "not yet")
        return "done"

    @app.task(retry=5)
    async def never() -> None:
        raise DoNotRetry("the card was declined")

    async with running(Worker(app)):
        first = await finished(await later.delay())
        second = await finished(await never.delay())

    assert (first.state, first.attempts_made) == (JobState.COMPLETED, 2)
    assert (second.state, second.attempts_made) == (JobState.FAILED, 1)
    assert second.error == "the card was declined"


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("nobody", {}, "no task 'nobody' here; this worker knows: send"),
        ("send", [1], "must be a JSON object of arguments, not list"),
        ("send", {"from": 1}, "does not fit the task"),
        ("send", {"to": 5}, "does not fit the task: Expected `str`, got `int`"),
    ],
)
async def test_a_job_we_cannot_run_fails_with_the_reason(
    app: App, name: str, data: object, reason: str
) -> None:
    @app.task()
    async def send(to: str) -> None: ...

    queue = app.queue("default")
    async with running(Worker(app)):
        bad = await finished(await queue.add(name, data))
        good = await finished(await send.delay("a"))

    assert bad.state is JobState.FAILED
    assert reason in str(bad.error)
    assert good.state is JobState.COMPLETED


async def test_a_job_that_is_not_json_fails_and_the_worker_lives(app: App) -> None:
    @app.task()
    async def send(to: str) -> None: ...

    queue = app.queue("default")
    bad = await queue.add("send", {"to": "x"})
    key = f"{app.prefix}:default:{bad.id}"
    await app.connection.reader.hset(key, mapping={"data": b"\xff{", "opts": "nonsense"})

    async with running(Worker(app)):
        job = await finished(bad)
        good = await finished(await send.delay("a"))

    assert "not JSON" in str(job.error)
    assert good.state is JobState.COMPLETED


async def test_a_result_that_is_no_json_fails_the_job(app: App) -> None:
    @app.task(retry=3)
    async def odd() -> object:
        return {"a": float("nan")}

    async with running(Worker(app)):
        job = await finished(await odd.delay())

    assert (job.state, job.attempts_made) == (JobState.FAILED, 1)
    assert "result cannot be stored" in str(job.error)


async def test_what_a_handler_raises_never_ends_the_worker(app: App) -> None:
    @app.task(retry=1)
    async def leave(how: str) -> None:
        if how == "exit":
            raise SystemExit(3)
        if how == "cancel":
            raise asyncio.CancelledError
        raise KeyboardInterrupt

    async with running(Worker(app)):
        jobs = [await finished(await leave.delay(how)) for how in ("exit", "cancel", "interrupt")]

    assert [job.state for job in jobs] == [JobState.FAILED] * 3
    assert "SystemExit" in str(jobs[0].error)


async def test_slots_bound_what_runs_at_once_over_all_queues(app: App) -> None:
    running_now, peak = 0, 0

    async def work() -> None:
        nonlocal running_now, peak
        running_now += 1
        peak = max(peak, running_now)
        await asyncio.sleep(0)
        running_now -= 1

    for queue in ("a", "b"):
        app.task(name=f"work-{queue}", queue=queue)(work)
    for queue in ("a", "b"):
        await app.queue(queue).add_many([(f"work-{queue}", {}) for _ in range(100)])

    async with running(Worker(app, queues=["a", "b"], concurrency=3)):

        async def done() -> bool:
            samples = await app.inspector.sample([app.queue(q).ref for q in ("a", "b")])
            return all(s.counts[JobState.COMPLETED] == 100 for s in samples)

        await eventually(done)

    assert 1 <= peak <= 3


async def test_a_busy_queue_leaves_slots_to_the_others(app: App) -> None:
    order: list[str] = []

    @app.task(queue="busy")
    async def busy() -> None:
        order.append("busy")
        await asyncio.sleep(0.001)

    @app.task(queue="quiet")
    async def quiet() -> None:
        order.append("quiet")

    await app.queue("busy").add_many([("busy", {}) for _ in range(400)])
    await app.queue("quiet").add_many([("quiet", {}) for _ in range(3)])

    async with running(Worker(app, queues=["busy", "quiet"], concurrency=2)):

        async def done() -> bool:
            return len(order) == 403

        await eventually(done)

    assert max(n for n, name in enumerate(order) if name == "quiet") < 200


async def test_a_delayed_job_runs_on_an_idle_worker(app: App) -> None:
    @app.task()
    async def soon() -> None: ...

    async with running(Worker(app)):
        handle = await soon.options(delay="150ms").delay()
        assert await handle.state() is JobState.DELAYED
        job = await finished(handle)

    assert job.started_at_ms is not None
    assert job.started_at_ms - job.added_at_ms >= 150


async def test_paused_means_no_job_starts(app: App) -> None:
    @app.task()
    async def work() -> None: ...

    queue = app.queue("default")
    await queue.pause()
    async with running(Worker(app)):
        handle = await work.delay()
        await queue.add("work", {}, delay="1ms")

        async def promoted() -> bool:
            (sample,) = await app.inspector.sample([queue.ref])
            return sample.counts[JobState.WAITING] == 2

        await eventually(promoted)  # the worker has looked, and took nothing
        assert await handle.state() is JobState.WAITING
        await queue.resume()
        await finished(handle)


async def test_finished_jobs_follow_the_apps_keep_rule_unless_they_have_one(
    redis_url: str, prefix: str
) -> None:
    app = App("keep", redis=redis_url, prefix=prefix, keep_completed=Keep(count=2))

    @app.task()
    async def work() -> None: ...

    kept = [await work.options(keep_completed=True).delay() for _ in range(3)]
    async with running(Worker(app)):
        for handle in kept:
            await finished(handle)
        for _ in range(5):
            await work.delay()

        async def drained() -> bool:
            (sample,) = await app.inspector.sample([app.queue("default").ref])
            return sample.stats.attempts() == 8

        await eventually(drained)

    jobs = await app.inspector.list_jobs(app.queue("default").ref, JobState.COMPLETED)
    assert len(jobs) == 2
    await app.aclose()


async def test_a_default_nobody_asked_for_trims_no_peers_jobs(app: App) -> None:
    @app.task()
    async def work() -> None: ...

    queue = app.queue("default")
    client, keys = app.connection.reader, queue._keys
    await client.hset(keys.of("meta"), "version", "bullmq:6.7.0")
    await client.zadd(keys.of("completed"), {f"theirs-{n}": n for n in range(1_500)})
    async with running(Worker(app)):
        await finished(await work.delay())
        shared = await client.zcard(keys.of("completed"))
        await client.hdel(keys.of("meta"), "version")
        await finished(await work.delay())

    assert shared == 1_501
    assert await client.zcard(keys.of("completed")) <= 1_000


async def test_a_worker_shows_itself_while_it_works(app: App) -> None:
    release = asyncio.Event()

    @app.task(queue="mail")
    async def wait() -> None:
        await release.wait()

    ref = app.queue("mail").ref
    handle = await wait.delay()
    async with running(Worker(app, queues=["mail", "other"], concurrency=4)):

        async def seen() -> bool:
            (sample,) = await app.inspector.sample([ref])
            return bool(sample.workers and sample.workers[0].running)

        await eventually(seen)
        (sample,) = await app.inspector.sample([ref])
        release.set()
    (after,) = await app.inspector.sample([ref])

    (worker,) = sample.workers
    assert (worker.queues, worker.concurrency, worker.busy) == (("mail", "other"), 4, 1)
    assert worker.running[0].id == handle.id
    assert after.workers == ()


async def test_a_restarted_server_is_worked_on_at_once(prefix: str) -> None:
    with redis_server("--enable-debug-command", "local") as url:
        app = App("again", redis=url, prefix=prefix)

        @app.task(queue="mail")
        async def work() -> None: ...

        queue = Queue("mail", redis=url, prefix=prefix)
        async with running(Worker(app, queues=["mail"])):
            await finished(await queue.add("work", {}))
            for _ in range(5):
                await queue._connection.reader.client_kill_filter(_type="normal", skipme=False)
                await queue._connection.reader.script_flush()
                job = await finished(await queue.add("work", {}))
                assert job.state is JobState.COMPLETED
        await app.aclose()
        await queue.aclose()


async def test_a_server_that_evicts_is_refused(prefix: str) -> None:
    with redis_server("--maxmemory", "50mb", "--maxmemory-policy", "allkeys-lru") as url:
        app = App("evict", redis=url, prefix=prefix)

        with pytest.raises(UnsupportedServer, match="set it to noeviction"):
            await Worker(app).run(handle_signals=False)
        await app.aclose()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"concurrency": 0}, "concurrency must be between 1"),
        ({"lock_ms": 100}, "lock_ms must be between 500"),
        ({"grace": "soon"}, "grace"),
        ({"queues": "mail"}, "queues must be a list"),
        ({"queues": []}, "queues"),
        ({"threads": 0}, "threads"),
    ],
)
async def test_a_wrong_worker_option_is_named(
    app: App, options: dict[str, object], named: str
) -> None:
    with pytest.raises(InvalidOption, match=named):
        Worker(app, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere:app"], "no module 'nowhere'"),
        (["tests.faults.jobs:nothing"], "has no tickbird.App named 'nothing'"),
        (["tests.faults.jobs:app", "--redis-url", "redis://127.0.0.1:1"], "no Redis answers at"),
        (["tests.faults.jobs:app", "--redis-url", "ftp://x"], "cannot read the Redis URL"),
        (["tests.faults.jobs:app", "--concurrency", "0"], "concurrency must be between"),
    ],
)
def test_what_a_user_got_wrong_is_one_sentence_and_exit_code_2(
    arguments: list[str], said: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tickbird.cli", "worker", *arguments],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip

    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("credentials", ["", ":wrong@", "nobody:wrong@"])
def test_a_wrong_password_is_one_sentence(credentials: str) -> None:
    with redis_server("--requirepass", "right") as url:
        done = subprocess.run(
            [sys.executable, "-m", "tickbird.cli", "worker", "tests.faults.jobs:app",
             "--redis-url", url.replace("unix://", f"unix://{credentials}")],
            capture_output=True, text=True, timeout=30, check=False,
        )  # fmt: skip

    assert done.returncode == 2
    assert "refuses the user or password" in done.stderr
    assert "Traceback" not in done.stderr
