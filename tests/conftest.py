"""One real server for the run; each test has its own key prefix on it, so that all are apart."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from itertools import count
from pathlib import Path

import pytest
import redis

from tickbird import App, Queue, Worker
from tickbird.embedded import EmbeddedServer

_numbers = count(1)


def require_or_skip(program: str, how: str) -> str:
    """The program's path; without it the test is skipped with how to get it, or fails in CI."""
    path = shutil.which(program)
    if path is None:
        missing(f"{program} is not installed: {how}")
    return str(path)


def missing(reason: str) -> None:
    """Skip, or fail where nothing may be skipped (TICKBIRD_REQUIRE_ALL=1)."""
    if os.environ.get("TICKBIRD_REQUIRE_ALL") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


@contextmanager
def redis_server(*options: str) -> Iterator[str]:
    """A redis-server of Debian's package on a unix socket of its own, for the length of the block."""
    program = require_or_skip("redis-server", "apt-get install redis-server")
    with tempfile.TemporaryDirectory(prefix="tb-", dir="/tmp") as folder:
        socket = Path(folder) / "s"
        process = subprocess.Popen(
            [program, "--port", "0", "--unixsocket", str(socket), "--dir", folder, "--save", "",
             "--maxmemory-policy", "noeviction", *options],
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            _await_ping(str(socket), process)
            yield f"unix://{socket}"
        finally:
            process.terminate()
            process.wait(timeout=10)


def _await_ping(socket: str, process: subprocess.Popen[bytes]) -> None:
    client = redis.Redis(unix_socket_path=socket)
    deadline_s = time.monotonic() + 20
    while True:
        try:
            client.ping()
            break
        except redis.AuthenticationError:
            break  # it answers: that a password is wanted is the test's affair
        except (redis.ConnectionError, FileNotFoundError):
            assert process.poll() is None, "redis-server ended while starting"
            assert time.monotonic() < deadline_s, "redis-server does not answer"
            time.sleep(0.01)
    client.close()


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """The server of the run: embedded, or redis-server where TICKBIRD_TEST_SERVER says so."""
    if os.environ.get("TICKBIRD_TEST_SERVER") == "redis-server":
        with redis_server() as url:
            yield url
    else:
        with EmbeddedServer() as server:
            yield server.url


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Browser tests last: Playwright's blocking interface keeps an event loop running behind it."""
    items.sort(key=lambda item: item.get_closest_marker("browser") is not None)


async def eventually(check: Callable[[], Awaitable[object]], within_s: float = 20.0) -> object:
    """Await `check` again and again until it gives something true; fails after `within_s`."""
    deadline_s = time.monotonic() + within_s
    while True:
        found = await check()
        if found:
            return found
        assert time.monotonic() < deadline_s, f"not within {within_s} s: {check}"
        await asyncio.sleep(0.01)


@asynccontextmanager
async def running(worker: Worker) -> AsyncIterator[Worker]:
    """The worker at work for the length of the block, in this process."""
    task = asyncio.create_task(worker.run(handle_signals=False))
    try:
        yield worker
    finally:
        worker.stop()
        await task


@pytest.fixture
def prefix() -> str:
    """A key prefix that no other test uses."""
    return f"t{os.getpid()}-{next(_numbers)}"


@pytest.fixture
def queue_name() -> str:
    """A queue name; with the test's prefix it is the test's own."""
    return "mail"


@pytest.fixture
async def queue(redis_url: str, prefix: str, queue_name: str) -> AsyncIterator[Queue]:
    """The test's queue."""
    queue = Queue(queue_name, redis=redis_url, prefix=prefix)
    yield queue
    await queue.aclose()


@pytest.fixture
async def app(redis_url: str, prefix: str) -> AsyncIterator[App]:
    """An app without tasks on the test's prefix."""
    app = App("test", redis=redis_url, prefix=prefix)
    yield app
    await app.aclose()
