"""Whether a server is fit to hold jobs, and a queue in order.

Every process asks the first once, before it begins; `tickbird doctor` asks both, and can repair.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from redis.exceptions import RedisError

from tickbird.clock import Clock, SystemClock
from tickbird.errors import UnsupportedServer
from tickbird.inspector import ServerInfo, server_info
from tickbird.queue import Queue
from tickbird.storage.connection import Connection, shown_url, unavailable
from tickbird.storage.keys import QueueKeys

MIN_VERSION = (7, 0)
"""Script flags came with Redis 7.0; every Valkey (7.2 and later) reports at least that."""


async def require_usable_server(connection: Connection) -> ServerInfo:
    """Look at the server and refuse one on which jobs would not be safe.

    Raises RedisUnavailable (no answer, wrong password) or UnsupportedServer (older than Redis
    7.0, or a policy that evicts keys), each in one sentence.
    """
    try:
        info = await connection.reader.info()
    except (RedisError, OSError) as error:
        raise unavailable(connection.url, error) from error
    where = shown_url(connection.url)
    version = str(info.get("redis_version", "0"))
    if tuple(int(part) for part in re.findall(r"\d+", version)[:2]) < MIN_VERSION:
        raise UnsupportedServer(
            f"Redis at {where} is version {version}; Tickbird needs Redis 7.0 or Valkey 7.2 or later"
        )
    server = server_info(info)
    if server.memory_policy not in ("", "noeviction"):
        raise UnsupportedServer(
            f"Redis at {where} evicts keys when memory runs out (maxmemory-policy "
            f"{server.memory_policy}): it would delete jobs; set it to noeviction"
        )
    return server


class Level(StrEnum):
    """How a finding is meant, mildest first."""

    OK = "ok"
    WARNING = "warning"
    BAD = "bad"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One sentence about the server or a queue, and what to do where something is wrong."""

    level: Level
    text: str


_SKEW_MS = 1_000
_NEARLY_FULL = 0.9
# The first release of each line with the Lua holes of 2025 closed (CVE-2025-49844 and others).
_LUA_FIXED = {(7, 2): 11, (7, 4): 6, (8, 0): 4, (8, 2): 2}
_ACTIVE_LOOK = 10_000


async def examine_server(connection: Connection, clock: Clock | None = None) -> list[Finding]:
    """What is to be said about the server, in plain sentences. Raises as require_usable_server."""
    server = await require_usable_server(connection)
    clock = clock or SystemClock()
    before_ms = clock.now_ms()
    seconds, micros = await connection.reader.time()
    skew_ms = abs(seconds * 1_000 + micros // 1_000 - (before_ms + clock.now_ms()) // 2)
    config = await _config(connection)
    findings = [
        Finding(level=Level.OK, text=f"{server.product} {server.version}, policy noeviction"),
        _on_version(server),
        _on_persistence(server, config.get("appendfsync", "")),
        _on_memory(server),
    ]
    if server.role != "master":
        text = f"it is a {server.role}, which takes no writes: use the master's address"
        findings.append(Finding(level=Level.BAD, text=text))
    if skew_ms > _SKEW_MS:
        text = f"its clock and this machine's differ by {skew_ms:,} ms; Node workers go by theirs"
        findings.append(Finding(level=Level.WARNING, text=text))
    return [finding for finding in findings if finding is not None]


async def examine_queue(queue: Queue, *, repair: bool = False) -> list[Finding]:
    """Whether each job of a queue is in exactly one place; with `repair`, put back what is not.

    Jobs in no state go where their fields say they belong, ids without a job are removed, and
    deadlines of locks that no running job has are dropped. The queue may be at work meanwhile.
    """
    jobs = ids = mended = 0
    cursor: str | None = ""
    while cursor is not None:
        found = await queue.remove_orphans(cursor=cursor, dry_run=not repair, put_back=True)
        jobs += len(found.job_ids)
        ids += len(found.ids)
        mended += found.removed
        cursor = found.cursor or None
    label = queue.ref.label
    findings = [
        *_counted(jobs, f"{label}: %d jobs are in no state: they would never run"),
        *_counted(ids, f"{label}: %d ids stand in a list without a job"),
        *await _examine_locks(queue, repair=repair),
    ]
    if repair and mended:
        findings.append(Finding(level=Level.OK, text=f"{label}: {mended:,} of them mended"))
    return findings or [Finding(level=Level.OK, text=f"{label}: in order")]


async def _examine_locks(queue: Queue, *, repair: bool) -> list[Finding]:
    """Deadlines without a running job, and running jobs without a lock, of the first 10,000."""
    keys, reader = QueueKeys(queue.ref), queue.connection.reader
    active = await _reading(queue, lambda: reader.lrange(keys.of("active"), 0, _ACTIVE_LOOK - 1))
    deadlines = await _reading(queue, lambda: reader.zrange(keys.own("locks"), 0, _ACTIVE_LOOK - 1))
    stale = set(deadlines) - set(active) if len(active) < _ACTIVE_LOOK else set()
    pipe = reader.pipeline(transaction=False)
    for job_id in active:
        pipe.exists(keys.raw_job(job_id) + b":lock")
    locked = await _reading(queue, pipe.execute) if active else []
    unlocked = sum(1 for exists in locked if not exists)
    if repair and stale:
        await reader.zrem(keys.own("locks"), *stale)
    label = queue.ref.label
    return [
        *_counted(len(stale), f"{label}: %d deadlines belong to no running job"),
        *_counted(
            unlocked,
            f"{label}: %d running jobs have no lock: their workers are gone; workers bring them back",
        ),
    ]


async def _reading(queue: Queue, read: Callable[[], Awaitable[Any]]) -> Any:
    try:
        return await read()
    except (RedisError, OSError) as error:
        raise unavailable(queue.connection.url, error) from error


def _counted(count: int, text: str) -> list[Finding]:
    return [Finding(level=Level.WARNING, text=text % count)] if count else []


async def _config(connection: Connection) -> dict[str, str]:
    """The settings that matter; empty where the server does not tell."""
    try:
        found: dict[str, str] = await connection.reader.config_get("appendfsync")
    except (RedisError, OSError):
        return {}
    return {str(name): str(value) for name, value in found.items()}


def _on_version(server: ServerInfo) -> Finding | None:
    if server.product != "redis":
        return None
    numbers = [int(part) for part in re.findall(r"\d+", server.version)[:3]]
    line, patch = (numbers[0], numbers[1]), numbers[2] if len(numbers) > 2 else 0  # noqa: PLR2004
    fixed = _LUA_FIXED.get(line)
    if fixed is not None and patch < fixed:
        text = (
            f"Redis {server.version} has known holes in Lua: update to {line[0]}.{line[1]}.{fixed}"
        )
        return Finding(level=Level.WARNING, text=text)
    if line < min(_LUA_FIXED):
        text = (
            f"Redis {line[0]}.{line[1]} gets no more fixes from its makers; "
            "make sure that your distribution patches it"
        )
        return Finding(level=Level.WARNING, text=text)
    return None


def _on_persistence(server: ServerInfo, fsync: str) -> Finding:
    if not server.aof:
        text = "it keeps no append-only file: a crash loses what came since its last snapshot"
        return Finding(level=Level.WARNING, text=text)
    how = {"always": "at every write", "everysec": "every second"}.get(fsync, "as the system likes")
    return Finding(level=Level.OK, text=f"append-only file, written to disk {how}")


def _on_memory(server: ServerInfo) -> Finding | None:
    if not server.max_memory_bytes:
        return None
    share = server.memory_bytes / server.max_memory_bytes
    if share < _NEARLY_FULL:
        return None
    text = f"its memory is {share:.0%} full: beyond maxmemory adds are refused"
    return Finding(level=Level.WARNING, text=text)
