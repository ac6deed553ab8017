"""A database of its own for the machine, and a clock that moves only when told to."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, TypeVar

import pytest

from tickbird.schedule import Schedules
from tickbird.storage import scripts
from tickbird.storage.connection import Connection

START_MS = 1_760_000_000_000

T = TypeVar("T")


@dataclass
class Call:
    """A script call over a lane, as it was sent, with its answer."""

    script: str
    meta_key: str
    args: tuple[Any, ...]
    reply: Any


@dataclass
class Laboratory:
    """A database of its own, a clock that moves when told to, and a note of what was sent."""

    connection: Connection
    runner: asyncio.Runner
    now_ms: int = START_MS
    steps: int = 0
    calls: Counter[str] = field(default_factory=Counter)
    lane_calls: list[Call] = field(default_factory=list)

    def run(self, awaitable: Awaitable[T]) -> T:
        async def wait() -> T:
            return await awaitable

        return self.runner.run(wait())


@contextmanager
def laboratory(url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Laboratory]:
    """All scripts and schedules that run meanwhile take their time from the laboratory."""
    with asyncio.Runner() as runner:
        lab = Laboratory(Connection(f"{url}?db=9"), runner)
        send, read_schedule = scripts.run, Schedules._read

        async def run(call: scripts.Caller, name: str, meta_key: str, *args: Any) -> Any:
            place = clock_argument(name)
            timed = args if place is None else (*args[: place - 1], lab.now_ms)
            reply = await send(call, name, meta_key, *timed)
            if len(args) > 2 and ":op:" in str(args[1]):
                lab.lane_calls.append(Call(name, meta_key, args, reply))
            return reply

        async def read(self: Schedules, schedule_id: str) -> Any:
            return replace(await read_schedule(self, schedule_id), now_ms=lab.now_ms)

        monkeypatch.setattr(scripts, "run", run)
        monkeypatch.setattr(Schedules, "_read", read)
        yield lab
        lab.run(lab.connection.aclose())


@cache
def clock_argument(script: str) -> int | None:
    """The place among a script's arguments where tests say what time it is; None: it has none."""
    found = re.search(r"(\d+) now_ms, tests only", scripts._read(script))
    return int(found[1]) if found else None
