"""Node's clients of BullMQ as the tests use them: child processes that obey a line at a time."""

from __future__ import annotations

import asyncio
import json
import subprocess
import threading
from collections import Counter
from concurrent.futures import Future
from itertools import count
from pathlib import Path
from typing import Any, cast

from tests.conftest import eventually

DRIVER = Path(__file__).parent / "node" / "driver.mjs"
REPLY_WITHIN_S = 30.0


class NodeError(AssertionError):
    """A command failed in Node; the text is its error with its stack."""


class NodeProcess:
    """One process with one release of BullMQ in it; many tests may use it at once."""

    def __init__(self, package: str, modules: Path, redis_url: str, *more: str) -> None:
        self.package = package
        self._process = subprocess.Popen(
            ["node", str(DRIVER), str(modules), package, redis_url, *more],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._calls = count(1)
        self._waiting: dict[int, Future[Any]] = {}
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    async def call(self, command: str, **arguments: Any) -> Any:
        number = next(self._calls)
        reply: Future[Any] = Future()
        self._waiting[number] = reply
        assert self._process.stdin is not None
        self._process.stdin.write(
            json.dumps({"call": number, "command": command, **arguments}) + "\n"
        )
        self._process.stdin.flush()
        async with asyncio.timeout(REPLY_WITHIN_S):
            return await asyncio.wrap_future(reply)

    def kill(self) -> None:
        """End it as a crash would: nothing is closed, nothing handed back."""
        self._process.kill()
        self._end()

    def stop(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._end()

    def _end(self) -> None:
        self._process.wait(timeout=10)
        self._reader.join(timeout=10)
        assert self._process.stdout is not None
        assert self._process.stdin is not None
        self._process.stdout.close()
        self._process.stdin.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            answer = json.loads(line)
            reply = self._waiting.pop(answer["call"])
            if "error" in answer:
                reply.set_exception(NodeError(answer["error"]))
            else:
                reply.set_result(answer["reply"])
        for reply in self._waiting.values():
            reply.set_exception(NodeError("the process has ended"))


class NodeQueue:
    """A queue as Node sees it; `node("counts")` is the driver's command of that name."""

    def __init__(self, process: NodeProcess, prefix: str, name: str) -> None:
        self.process = process
        self.name = name
        self._where = {"prefix": prefix, "queue": name}

    @property
    def where(self) -> tuple[str, str]:
        """Prefix and name, for the same queue in another process."""
        return self._where["prefix"], self._where["queue"]

    @property
    def is_older(self) -> bool:
        """BullMQ 5, which pauses by renaming lists."""
        return self.process.package == "bullmq5"

    async def __call__(self, command: str, **arguments: Any) -> Any:
        return await self.process.call(command, **self._where, **arguments)

    async def add(self, name: str, data: Any = None, **opts: Any) -> str:
        """Queue.add of Node; gives the job's id."""
        job = await self("add", name=name, data={} if data is None else data, opts=opts)
        return str(job["id"])

    async def job_in(self, state: str, job_id: str) -> dict[str, Any]:
        """The job as Node sees it, once it is in that state."""

        async def found() -> Any:
            job = await self("job", id=job_id)
            return job if job is not None and job["state"] == state else None

        return cast("dict[str, Any]", await eventually(found))

    async def has(self, **counts: int) -> bool:
        """Whether Node counts so many jobs in these states."""
        found: dict[str, int] = await self("counts")
        return counts.items() <= found.items()

    async def heard(self, **at_least: int) -> list[tuple[str, dict[str, Any]]]:
        """All events Node's listener was told, once there are so many of these kinds."""

        async def found() -> Any:
            events = [(event, fields) for event, fields in await self("seen")]
            kinds = Counter(event for event, _ in events)
            return events if all(kinds[kind] >= n for kind, n in at_least.items()) else None

        return cast("list[tuple[str, dict[str, Any]]]", await eventually(found))

    async def work(self, **opts: Any) -> None:
        """Start a Worker of Node on this queue."""
        await self("work", opts=opts)

    async def close(self) -> None:
        """Close what the test has opened; errors Node's objects reported are the test's failure."""
        errors = await self("close")
        assert errors == [], errors
