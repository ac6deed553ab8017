"""What happens to the server: killed, asleep, forgetful of scripts and of connections."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import eventually, running
from tests.faults.server import OwnServer
from tickbird import App, JobState, Keep, Outcome, Queue, RedisUnavailable, Worker

pytestmark = pytest.mark.faults


@pytest.fixture
def server() -> Iterator[OwnServer]:
    folder = Path(tempfile.mkdtemp(prefix="tb-", dir="/tmp"))  # a socket's path must be short
    server = OwnServer(folder)
    server.start()
    yield server
    server.kill()
    shutil.rmtree(folder)


@pytest.fixture
async def app(server: OwnServer, prefix: str) -> AsyncIterator[App]:
    app = App("server", redis=server.url, prefix=prefix, keep_completed=Keep())
    yield app
    await app.aclose()


def finished(app: App, count: int) -> Callable[[], object]:
    async def check() -> bool:
        try:
            (sample,) = await app.inspector.sample([app.queue("mail").ref])
        except RedisUnavailable:
            return False
        done = sample.counts[JobState.COMPLETED] + sample.counts[JobState.FAILED]
        return done == count and sample.counts[JobState.ACTIVE] == 0

    return check


async def test_a_killed_server_comes_back_with_every_job(app: App, server: OwnServer) -> None:
    runs: list[int] = []

    @app.task(queue="mail", retry=3)
    async def work(n: int) -> None:
        runs.append(n)
        await asyncio.sleep(0.005)

    queue = app.queue("mail")
    acknowledged = 0
    async with running(Worker(app, queues=["mail"], concurrency=10, lock_ms=3_000)):
        for _ in range(4):
            handles = await queue.add_many([("work", {"n": acknowledged + n}) for n in range(300)])
            acknowledged += len(handles)
            await asyncio.to_thread(server.kill)
            await asyncio.to_thread(server.start)
        await eventually(finished(app, acknowledged), 30)

    (sample,) = await app.inspector.sample([queue.ref])
    assert set(runs) == set(range(acknowledged))
    assert sample.counts[JobState.COMPLETED] == acknowledged
    assert sample.stats.attempts(Outcome.COMPLETED) == acknowledged
    assert len(runs) - acknowledged <= sample.stats.stalled


async def test_adds_during_an_outage_are_in_once_or_refused(app: App, server: OwnServer) -> None:
    queue = Queue("mail", redis=server.url, prefix=app.prefix, deadline_s=15)

    async def add(n: int) -> str:
        await asyncio.sleep(n / 400)
        return (await queue.add("work", {"n": n})).id

    async def crash() -> None:
        await asyncio.sleep(0.2)
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(server.start)

    ids, _ = await asyncio.gather(asyncio.gather(*(add(n) for n in range(200))), crash())

    (sample,) = await queue._inspector.sample([queue.ref])
    assert len(set(ids)) == 200
    assert sample.counts[JobState.WAITING] == 200
    await queue.aclose()


async def test_a_sleeping_server_makes_no_stall(app: App, server: OwnServer) -> None:
    @app.task(queue="mail", retry=1)
    async def work() -> None:
        await asyncio.sleep(1.2)

    queue = app.queue("mail")
    worker = Worker(app, queues=["mail"], concurrency=20, lock_ms=3_000, stalled_interval_ms=300)
    async with running(worker):
        await queue.add_many([("work", {}) for _ in range(20)])

        async def at_work() -> bool:
            (sample,) = await app.inspector.sample([queue.ref])
            return sample.counts[JobState.ACTIVE] == 20

        await eventually(at_work)
        await asyncio.to_thread(server.command, "DEBUG", "SLEEP", "1.5")  # half a lock
        await eventually(finished(app, 20))

    (sample,) = await app.inspector.sample([queue.ref])
    assert sample.stats.stalled == 0
    assert sample.stats.attempts(Outcome.COMPLETED) == 20


async def test_forgotten_scripts_and_cut_connections_are_no_errors(
    app: App, server: OwnServer
) -> None:
    runs: list[int] = []

    @app.task(queue="mail", retry=1)
    async def work(n: int) -> None:
        runs.append(n)

    queue = app.queue("mail")
    async with running(Worker(app, queues=["mail"], concurrency=10)):
        for batch in range(30):
            await asyncio.to_thread(server.command, "SCRIPT", "FLUSH")
            if batch % 3 == 0:
                await asyncio.to_thread(
                    server.command, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"
                )
            await queue.add_many([("work", {"n": batch * 20 + n}) for n in range(20)])
        await eventually(finished(app, 600), 30)

    (sample,) = await app.inspector.sample([queue.ref])
    assert sorted(runs) == list(range(600))
    assert (sample.stats.added, sample.stats.stalled) == (600, 0)


async def test_a_server_that_has_forgotten_everything_is_worked_on(
    app: App, server: OwnServer
) -> None:
    @app.task(queue="mail")
    async def work() -> None: ...

    queue = app.queue("mail")
    async with running(Worker(app, queues=["mail"])):
        await queue.add("work")
        await eventually(finished(app, 1))
        server.command("FLUSHALL")
        handle = await queue.add("work")
        await eventually(finished(app, 1))
        assert await handle.state() is JobState.COMPLETED
