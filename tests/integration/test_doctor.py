from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest

from tests.conftest import redis_server
from tests.factories import HandWorker
from tickbird import JobState, Queue
from tickbird.doctor import Level, examine_queue, examine_server
from tickbird.storage.connection import Connection


async def texts(queue: Queue, *, repair: bool = False) -> list[str]:
    return [finding.text for finding in await examine_queue(queue, repair=repair)]


async def test_a_queue_at_work_is_in_order(queue: Queue) -> None:
    await queue.add_many([("x", n) for n in range(20)])
    worker = HandWorker(queue)
    await worker.end(await worker.take_one())
    await worker.take(3)

    assert await texts(queue) == [f"{queue.ref.label}: in order"]


async def test_what_is_adrift_is_told_and_mended(queue: Queue) -> None:
    lost, done, listed = await queue.add_many([("x", n) for n in range(3)])
    client, keys = queue._connection.reader, queue._keys
    worker = HandWorker(queue)
    await client.lrem(keys.of("wait"), 0, lost.id)
    await client.lrem(keys.of("wait"), 0, done.id)
    await client.hset(keys.job(done.id), mapping={"finishedOn": 5, "failedReason": "boom"})
    await client.delete(keys.job(listed.id))
    await client.zadd(keys.own("locks"), {"nobody": 1})

    found = await texts(queue)
    assert await queue.state(lost.id) is JobState.UNKNOWN
    mended = await texts(queue, repair=True)

    label = queue.ref.label
    assert found == [
        f"{label}: 2 jobs are in no state: they would never run",
        f"{label}: 1 ids stand in a list without a job",
        f"{label}: 1 deadlines belong to no running job",
    ]
    assert mended == [*found, f"{label}: 3 of them mended"]
    assert await texts(queue) == [f"{label}: in order"]
    assert await queue.state(lost.id) is JobState.WAITING
    assert await queue.state(done.id) is JobState.FAILED
    assert [job.id.decode() for job in await worker.take(10)] == [lost.id]


async def test_running_jobs_without_a_lock_are_told(queue: Queue) -> None:
    handle = await queue.add("x")
    await HandWorker(queue).take_one()
    await queue._connection.reader.delete(f"{queue._keys.job(handle.id)}:lock")

    (finding,) = await examine_queue(queue)

    assert finding.level is Level.WARNING
    assert "1 running jobs have no lock" in finding.text


async def test_a_server_is_described_in_sentences() -> None:
    with redis_server("--appendonly", "yes") as url:
        connection = Connection(url)
        used = (await connection.reader.info())["used_memory"]
        await connection.reader.config_set("maxmemory", int(used * 1.05))

        findings = await examine_server(connection)
        await connection.aclose()

    said = " / ".join(finding.text for finding in findings)
    assert "append-only file, written to disk every second" in said
    assert "beyond maxmemory adds are refused" in said


@pytest.mark.parametrize("broken", [False, True])
async def test_the_command_prints_and_tells_by_its_exit_code(queue: Queue, broken: bool) -> None:  # noqa: FBT001
    handle = await queue.add("x")
    if broken:
        await queue._connection.reader.delete(queue._keys.job(handle.id))

    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "tickbird.cli", "doctor", "--redis-url", queue._connection.url,
         "-q", queue.ref.label],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip

    lines = done.stdout.splitlines()
    # The embedded server keeps no append-only file, which is a warning of its own.
    assert done.returncode == 1
    assert any(line.startswith("ok") for line in lines)
    expected = "1 ids stand in a list" if broken else "in order"
    assert expected in lines[-1]
