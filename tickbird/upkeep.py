"""What operators do to a whole queue: replay, promote, clean, drain, obliterate. Queue builds on it.

Each works on a live queue of any size: in steps of some 500 jobs, each whole in itself. What is
interrupted leaves no job half done, and calling again goes on.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from redis.exceptions import RedisError

from tickbird.durations import Duration, parse_duration_ms
from tickbird.errors import InvalidOption, QueueInUse
from tickbird.job import JobState
from tickbird.operations import JOBS_PER_CALL, Operations, require_finished
from tickbird.storage.connection import unavailable
from tickbird.storage.keys import QUEUES
from tickbird.storage.wire import packed, raw_bytes, state_suffix, text

OnProgress = Callable[[int], object]
"""Is called after each step with the number of jobs done so far."""

_CLEANED_STATES = (
    JobState.COMPLETED,
    JobState.FAILED,
    JobState.DELAYED,
    JobState.PRIORITIZED,
    JobState.WAITING,
    JobState.ACTIVE,
)
_PAST_POLL_S = 0.001
_SCAN_COUNT = 1_000
_ORPHANS_PER_CALL = 100
_LIST_STEP = 5_000
_OVERLAP = 500
_MAX_LOOK = 100_000
# What of a job's hash every move of the job changes (remove_orphans.lua).
_MARKS = ("ats", "atm", "processedOn", "finishedOn", "delay", "tb:rdy", "tb:gen")
_JOB_ID = re.compile(rb"[^:]+|repeat:.+:\d+", re.DOTALL)
_SETS = ("completed", "waiting-children", "delayed", "failed", "prioritized")
# `active` before `wait`: what goes from one to the other meanwhile has started, which shows.
_LISTS = ("active", "wait", "paused")


_Adrift = tuple[bytes, str, tuple[bytes, ...]]
"""An id, the key's suffix it stands in or "" for a hash, and the hash's marks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Orphans:
    """What a look at a part of a queue's keys found adrift; `cursor` goes on there, "" = was all."""

    job_ids: tuple[str, ...] = ()
    """Jobs in no state: they would never run or be removed."""
    ids: tuple[tuple[str, str], ...] = ()
    """Ids without a job, each with the key's suffix it stands in (`wait`, `failed`, ...)."""
    removed: int = 0
    """How many were removed, or put back."""
    cursor: str = ""


class Upkeep(Operations):
    """The operator's side of one queue as a whole."""

    _is_registered = False

    async def replay_all(
        self,
        state: JobState = JobState.FAILED,
        *,
        before_ms: int | None = None,
        limit: int | None = None,
        reset_attempts: bool = True,
        on_progress: OnProgress | None = None,
    ) -> int:
        """Put the finished jobs back into the queue, the oldest first; gives how many.

        Those that had finished at `before_ms` (epoch milliseconds; by default and at most: when
        the call begins). One that fails again meanwhile is not taken again. `limit`: at most so
        many. As for replay() otherwise.
        """
        require_finished(state)
        begun_ms = await self._server_ms()
        last_ms = begun_ms if before_ms is None else min(before_ms, begun_ms)
        # From the next millisecond on, what is ready again by us can be told by its time.
        while await self._server_ms() <= begun_ms:  # noqa: ASYNC110 - nothing tells the time
            await asyncio.sleep(_PAST_POLL_S)

        def replay(job_ids: Sequence[str]) -> Awaitable[list[int]]:
            return self._replay(
                job_ids, state, reset_attempts=reset_attempts, ready_before_ms=begun_ms
            )

        return await self._move_all(state, str(last_ms), replay, limit, on_progress)

    async def promote_all(
        self, *, limit: int | None = None, on_progress: OnProgress | None = None
    ) -> int:
        """Let all delayed jobs run now, the next to be due first; gives how many.

        As many as were delayed when the call began, or `limit`. One that starts meanwhile and is
        delayed again stays so.
        """
        begun_ms = await self._server_ms()
        delayed = await self._read("ZCARD", self._keys.of("delayed"))
        limit = delayed if limit is None else min(limit, delayed)

        def promote(job_ids: Sequence[str]) -> Awaitable[list[int]]:
            return self._promote(job_ids, started_before_ms=begun_ms)

        return await self._move_all(JobState.DELAYED, "+inf", promote, limit, on_progress)

    async def clean(
        self,
        state: JobState,
        *,
        grace: Duration = 0,
        limit: int = 1_000,
        on_progress: OnProgress | None = None,
    ) -> int:
        """Delete jobs of a state that are older than `grace`, at most `limit`; gives how many.

        A job's age counts from its end where it has finished; in other states from its last
        start or else from its creation. Jobs that a worker has stay, and so do the next
        iterations of schedulers. Parents that wait for children cannot be cleaned: remove() them.
        """
        if state not in _CLEANED_STATES:
            known = ", ".join(_CLEANED_STATES)
            raise InvalidOption(f"only jobs of these states can be cleaned: {known}; not {state}")
        if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
            raise InvalidOption(f"limit must be a number from 1 on, not {limit!r}")
        grace_ms = parse_duration_ms(grace, "grace")
        suffixes = ("wait", "paused") if state is JobState.WAITING else (state_suffix(state),)
        deleted = 0
        for suffix in suffixes:
            place, older_ms = b"", ""
            while deleted < limit:
                count, place, older_ms = await self._write(
                    "clean_jobs", suffix, min(JOBS_PER_CALL, limit - deleted), grace_ms,
                    older_ms, place,
                )  # fmt: skip
                deleted += count
                _tell(on_progress, deleted)
                if place == b"":
                    break
        return deleted

    async def drain(self, *, delayed: bool = False, on_progress: OnProgress | None = None) -> int:
        """Delete the jobs that wait, and with `delayed` those that will; gives how many.

        As many as are there when the call begins: jobs that come meanwhile may stay. Running and
        finished jobs stay, the next iterations of schedulers too.
        """
        deleted, begun_ms = 0, ""
        for suffix in ("wait", "paused", "prioritized", *(["delayed"] if delayed else [])):
            size = "LLEN" if suffix in ("wait", "paused") else "ZCARD"
            left = await self._read(size, self._keys.of(suffix))
            score = b""
            while left > 0:
                count, looked, score, begun_ms = await self._write(
                    "drain_queue", suffix, min(JOBS_PER_CALL, left), score, begun_ms
                )
                deleted += count
                left -= looked
                _tell(on_progress, deleted)
                if looked == 0:
                    break
        return deleted

    async def obliterate(
        self, *, force: bool = False, on_progress: OnProgress | None = None
    ) -> int:
        """Delete the queue with everything in it; gives how many jobs that were.

        It must be paused, and while jobs run only `force` deletes them, too (their workers
        notice at the end): QueueInUse otherwise. Interrupted, it is still paused, and calling
        again goes on. Clients that are still there make the queue anew with their next call.
        """
        deleted, code = 0, 1
        while code == 1:
            code, count = await self._run("obliterate_queue", int(force), JOBS_PER_CALL)
            deleted += count
            _tell(on_progress, deleted)
        if code == 2:  # noqa: PLR2004 - the script's codes
            raise QueueInUse(
                f"queue {self.ref.label!r} is not paused: pause() it, then obliterate() it"
            )
        if code != 0:
            raise QueueInUse(
                f"jobs of queue {self.ref.label!r} are running: wait for them, "
                "or obliterate(force=True)"
            )
        await self._forget()
        return deleted

    async def remove_orphans(
        self,
        *,
        limit: int = 10_000,
        cursor: str = "",
        dry_run: bool = True,
        put_back: bool = False,
    ) -> Orphans:
        """Find jobs in no state and ids without a job, and remove them unless `dry_run`.

        With `put_back` such jobs are not removed but go where their fields say they belong: a
        finished one among the finished, any other to wait. Ids without a job are removed.

        Looks at about `limit` (at most 100,000) ids or keys of the server a call; begin with no
        cursor and go on with each answer's until that is "". A sweep may miss what moves while it
        looks, and never takes for adrift what is not: each is checked again before it is removed.
        A call that looks at hashes reads the waiting list whole, in small steps.
        """
        limit = max(1, min(limit, _MAX_LOOK))
        place, position = _parse_cursor(cursor)
        containers = (*_LISTS, *_SETS)
        found: list[_Adrift]
        try:
            if place < len(containers):
                suffix = containers[place]
                ids, size = await self._ids_without_job(suffix, position, limit)
                at_end = size < limit
                found = [(job_id, suffix, ()) for job_id in ids]
                following = f"{place + 1}:0" if at_end else f"{place}:{position + limit}"
            else:
                found, scan = await self._jobs_in_no_state(position, limit)
                following = f"{place}:{scan}" if scan else ""
        except (RedisError, OSError) as error:
            raise unavailable(self._connection.url, error) from error
        removed = 0 if dry_run else await self._remove_orphans(found, put_back=put_back)
        if removed and place < len(containers):  # what followed has moved up
            following = f"{place}:{max(0, position)}"
        return Orphans(
            job_ids=tuple(text(job_id) for job_id, suffix, _ in found if not suffix),
            ids=tuple((suffix, text(job_id)) for job_id, suffix, _ in found if suffix),
            removed=removed,
            cursor=following,
        )

    # --- steps --------------------------------------------------------------------

    async def _move_all(
        self,
        state: JobState,
        last_score: str,
        move: Callable[[Sequence[str]], Awaitable[list[int]]],
        limit: int | None,
        on_progress: OnProgress | None,
    ) -> int:
        """Page through a sorted set from its low end and move what is found; what stays is passed."""
        moved = passed = 0
        while limit is None or moved < limit:
            wanted = JOBS_PER_CALL if limit is None else min(JOBS_PER_CALL, limit - moved)
            ids = await self._read(
                "ZRANGE", self._keys.of(state_suffix(state)), "-inf", last_score, "BYSCORE",
                "LIMIT", passed, wanted,
            )  # fmt: skip
            if not ids:
                break
            codes = await move([text(job_id) for job_id in ids])
            moved += codes.count(1)
            passed += codes.count(2)
            _tell(on_progress, moved)
        return moved

    async def _server_ms(self) -> int:
        seconds, micros = await self._read("TIME")
        return int(seconds) * 1_000 + int(micros) // 1_000

    async def _forget(self) -> None:
        """Delete our own keys about the queue, and its entry in the registry."""
        reader = self._connection.reader
        pattern = _glob(self._keys.own("op:")) + b"*"
        try:
            workers = await reader.zrange(self._keys.workers, 0, -1)
            await reader.unlink(
                self._keys.workers, *(self._keys.worker(text(worker)) for worker in workers)
            )
            cursor: Any = 0
            while True:
                cursor, memos = await reader.scan(cursor, match=pattern, count=_SCAN_COUNT)
                if memos:
                    await reader.unlink(*memos)
                if cursor == 0:
                    break
            await reader.srem(QUEUES, self._keys.prefix[:-1])
        except (RedisError, OSError) as error:
            raise unavailable(self._connection.url, error) from error
        self._is_registered = False

    # --- orphans ------------------------------------------------------------------

    async def _ids_without_job(
        self, suffix: str, first: int, limit: int
    ) -> tuple[list[bytes], int]:
        """Ids of one list or set that have no hash, and how many were looked at."""
        reader = self._connection.reader
        command = "LRANGE" if suffix in _LISTS else "ZRANGE"
        key = self._keys.of(suffix)
        missing: list[bytes] = []
        looked = 0
        while looked < limit:
            last = first + min(looked + _LIST_STEP, limit) - 1
            ids = await reader.execute_command(command, key, first + looked, last)
            if not ids:
                break
            pipe = reader.pipeline(transaction=False)
            for job_id in ids:
                pipe.exists(self._keys.raw_job(job_id))
            there = await pipe.execute()
            missing += [
                job_id
                for job_id, exists in zip(ids, there, strict=True)
                if not exists and not job_id.startswith(b"0:")
            ]
            looked += len(ids)
        return missing, looked

    async def _jobs_in_no_state(self, scan: int, limit: int) -> tuple[list[_Adrift], int]:
        """Job hashes that are in no list or set, with their marks; and where the scan stands."""
        reader = self._connection.reader
        prefix = self._keys.prefix.encode()
        candidates: dict[bytes, tuple[bytes, ...]] = {}
        looked, cursor = 0, scan
        while looked < limit:
            cursor, keys = await reader.scan(
                cursor, match=_glob(self._keys.prefix) + b"*", count=_SCAN_COUNT, _type="hash"
            )
            looked += _SCAN_COUNT
            names = [key.removeprefix(prefix) for key in keys]
            candidates |= await self._marks([name for name in names if _JOB_ID.fullmatch(name)])
            if cursor == 0:
                break
        for suffix in _LISTS:
            if candidates:
                await self._drop_listed(suffix, candidates)
        return [(job_id, "", marks) for job_id, marks in candidates.items()], cursor

    async def _marks(self, ids: Sequence[bytes]) -> dict[bytes, tuple[bytes, ...]]:
        """The marks of those that are jobs and in no sorted set."""
        pipe = self._connection.reader.pipeline(transaction=False)
        for job_id in ids:
            pipe.hmget(self._keys.raw_job(job_id), "name", "timestamp", *_MARKS)
            for suffix in _SETS:
                pipe.zscore(self._keys.of(suffix), job_id)
        replies = await pipe.execute() if ids else []
        width = 1 + len(_SETS)
        found = {}
        for index, job_id in enumerate(ids):
            fields, *scores = replies[index * width : (index + 1) * width]
            name, timestamp, *marks = fields
            is_job = (name is not None and timestamp is not None) or marks[0] is not None
            if is_job and all(score is None for score in scores):
                found[job_id] = tuple(mark or b"" for mark in marks)
        return found

    async def _drop_listed(self, suffix: str, candidates: dict[bytes, tuple[bytes, ...]]) -> None:
        """Read a list from the end where it grows, so that no move in it hides an id."""
        first = 0
        while True:
            ids = await self._connection.reader.lrange(
                self._keys.of(suffix), first, first + _LIST_STEP - 1
            )
            for job_id in ids:
                candidates.pop(job_id, None)
            if len(ids) < _LIST_STEP:
                return
            # Removals before this place move the rest up by as many.
            first += _LIST_STEP - _OVERLAP

    async def _remove_orphans(self, found: Iterable[_Adrift], *, put_back: bool) -> int:
        messages = [
            (packed(job_id), suffix, [packed(mark) for mark in marks])
            for job_id, suffix, marks in found
        ]
        removed = done = 0
        while done < len(messages):
            codes = await self._write(
                "remove_orphans",
                msgspec.msgpack.encode(messages[done : done + _ORPHANS_PER_CALL]),
                int(put_back),
            )
            done += len(codes)
            removed += sum(codes)
        return removed


def _tell(on_progress: OnProgress | None, done: int) -> None:
    if on_progress is not None:
        on_progress(done)


def _glob(key: str) -> bytes:
    """A key as a pattern that matches it alone."""
    return re.sub(rb"([\\*?\[\]^])", rb"\\\1", raw_bytes(key))


def _parse_cursor(cursor: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d):(\d+)", cursor or "0:0", re.ASCII)
    if match is None or int(match[1]) > len(_LISTS) + len(_SETS):
        raise InvalidOption(f"not a cursor that remove_orphans() has given: {cursor!r}")
    return int(match[1]), int(match[2])
