"""What operators and dashboards do to a queue and its jobs. Whole queues: upkeep.py, built on this."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Any

import msgspec
from redis.exceptions import RedisError

from tickbird.clock import SystemClock
from tickbird.durations import Duration, parse_duration_ms
from tickbird.errors import InvalidOption
from tickbird.inspector import Inspector
from tickbird.job import JobState, QueueRef
from tickbird.limits import RateLimit
from tickbird.options import LAST_DUE_MS, MAX_PRIORITY
from tickbird.storage import scripts
from tickbird.storage.connection import Connection, NotNow, NotSent, ReplyLost, unavailable
from tickbird.storage.keys import QueueKeys
from tickbird.storage.lanes import Lanes
from tickbird.storage.wire import MAX_DATA_BYTES, encode_data, packed, raw_bytes, state_suffix

JOBS_PER_CALL = 500
MAX_GLOBAL_CONCURRENCY = 1_000_000
_RESUME_PER_CALL = 10_000


class Removal(StrEnum):
    """What became of a job that was to be removed."""

    REMOVED = "removed"
    MISSING = "missing"
    """There is no such job."""
    LOCKED = "locked"
    """A worker has it: it stays. Cancel it, or wait."""
    CHILD_LOCKED = "child_locked"
    """A worker has one of its pending children: the family stays."""
    NEXT_ITERATION = "next_iteration"
    """Its scheduler waits for it: it stays. Remove the scheduler instead."""


# As remove_jobs.lua answers; its last code means that the family has more members: call again.
_REMOVALS = (
    Removal.REMOVED,
    Removal.MISSING,
    Removal.LOCKED,
    Removal.CHILD_LOCKED,
    Removal.NEXT_ITERATION,
)
_UNFINISHED = len(_REMOVALS)


class Operations:
    """The operator's side of one queue: its jobs one by one, its pause and its limits."""

    _max_data_bytes = MAX_DATA_BYTES

    def __init__(self, ref: QueueRef, connection: Connection, deadline_s: float) -> None:
        self.ref = ref
        self._keys = QueueKeys(ref)
        self._connection = connection
        self._inspector = Inspector(connection)
        self._lanes = Lanes(connection, ref)
        self._deadline_s = deadline_s

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.ref.label!r}, redis={self._connection!r})"

    @property
    def name(self) -> str:
        """The queue's name, without its prefix."""
        return self.ref.name

    # --- the queue ----------------------------------------------------------------

    async def pause(self) -> None:
        """Stop starting jobs, for all workers of all clients; running ones go on, adds too."""
        await self._run("pause_queue")

    async def resume(self) -> None:
        """Start jobs again."""
        more = True
        while more:
            _, more = await self._run("resume_queue", _RESUME_PER_CALL)

    async def set_global_concurrency(self, jobs: int | None) -> None:
        """Let at most so many jobs of the queue run at once, over all workers; None: no limit."""
        if jobs is not None and (
            isinstance(jobs, bool)
            or not isinstance(jobs, int)
            or not 1 <= jobs <= MAX_GLOBAL_CONCURRENCY
        ):
            raise InvalidOption(
                f"global concurrency must be 1 to {MAX_GLOBAL_CONCURRENCY:,} or None, not {jobs!r}"
            )
        await self._run("set_limits", "concurrency", "" if jobs is None else jobs, "")

    async def set_global_rate_limit(self, limit: str | RateLimit | None) -> None:
        """Let jobs of the queue start at most so often, over all workers: "100/s"; None: no limit."""
        rate = None if limit is None else RateLimit.parse(limit)
        if rate is None:
            await self._run("set_limits", "rate", "", "")
        else:
            await self._run("set_limits", "rate", rate.max, rate.duration_ms)

    async def rate_limit(self, duration: Duration) -> bool:
        """Start no job for `duration` from now, as if a rate limit were used up.

        Workers look at it only where they have a rate limit. True: the queue has a global one,
        so that all of them do; False: only workers with a limit of their own heed this.
        """
        hold_ms = parse_duration_ms(duration, "duration")
        if hold_ms == 0:
            raise InvalidOption("duration must be longer than 0; remove_rate_limit() ends a hold")
        return bool(await self._run("set_limits", "hold", hold_ms, ""))

    async def remove_rate_limit(self) -> None:
        """End what `rate_limit` began, or the window that is used up; the limit itself stays."""
        await self._run("set_limits", "hold", "", "")

    # --- its jobs -----------------------------------------------------------------

    async def replay(
        self,
        job_ids: Sequence[str],
        *,
        state: JobState = JobState.FAILED,
        reset_attempts: bool = True,
    ) -> list[bool]:
        """Put finished jobs back into the queue as new; at most 500 a call.

        Attempts and stalls start again from nothing, stack traces stay as history. Without
        `reset_attempts` the attempts made count on: a job that has used them up gets one more.
        Per id: True when it is back in the queue, False when it was not in `state` (replayed
        before, removed): replaying twice makes one replay.
        """
        require_finished(state)
        codes = await self._replay(job_ids, state, reset_attempts=reset_attempts)
        return [code == 1 for code in codes]

    async def promote(self, job_ids: Sequence[str]) -> list[bool]:
        """Let delayed jobs run now, each in its place by priority; at most 500 a call.

        Per id: True when it waits now, False when it was not delayed.
        """
        return [code == 1 for code in await self._promote(job_ids)]

    async def change_delay(self, job_id: str, delay: Duration) -> bool:
        """Let a delayed job run after `delay` from now. False: it was not delayed."""
        delay_ms = parse_duration_ms(delay, "delay")
        if SystemClock().now_ms() + delay_ms >= LAST_DUE_MS:
            raise InvalidOption("delay ends after September 2039, which the layout cannot hold")
        return bool(await self._write("change_delay", raw_bytes(job_id), delay_ms))

    async def change_priority(self, job_id: str, priority: int, *, lifo: bool = False) -> bool:
        """Give a job another priority, 1 first, 0 = before all that have one. False: no such job.

        A job that waits moves behind those of its new priority, or before them with `lifo`; any
        other has it when it next waits. Finding a job without priority among a million that wait
        takes the server up to some 10 ms, and correspondingly less among fewer.
        """
        if isinstance(priority, bool) or not isinstance(priority, int):
            raise InvalidOption(f"priority must be a whole number, not {priority!r}")
        if not 0 <= priority <= MAX_PRIORITY:
            raise InvalidOption(f"priority must be 0 to {MAX_PRIORITY:,}, not {priority}")
        return bool(await self._write("change_priority", raw_bytes(job_id), priority, int(lifo)))

    async def update_data(self, job_id: str, data: Any) -> bool:
        """Replace a job's payload, checked as in add(). False: no such job.

        An attempt that runs already keeps what it was given.
        """
        encoded = encode_data(data, self._max_data_bytes)
        return bool(await self._write("update_data", raw_bytes(job_id), encoded))

    async def remove(self, job_ids: Sequence[str], *, children: bool = True) -> list[Removal]:
        """Delete jobs with all that belongs to them, by default also their children; <= 500 a call.

        A job or a pending child that a worker has is never taken from it: see Removal. Parents
        stop waiting for a removed child. A family of more than some 500 goes in several steps; if
        a worker takes a child in between, what is left stays and the answer is CHILD_LOCKED.
        Jobs are searched for among those that wait, as change_priority() does.
        """
        _require_few(job_ids)
        ids = [packed(raw_bytes(job_id)) for job_id in job_ids]
        results: list[Removal] = []
        while len(results) < len(ids):
            codes = await self._write(
                "remove_jobs", msgspec.msgpack.encode(ids[len(results) :]), int(children)
            )
            results += [_REMOVALS[code] for code in codes if code != _UNFINISHED]
        return results

    # --- calls --------------------------------------------------------------------

    async def _replay(
        self,
        job_ids: Sequence[str],
        state: JobState,
        *,
        reset_attempts: bool,
        ready_before_ms: int | None = None,
    ) -> list[int]:
        """Per id 1 = back in the queue, 0 = not in that state, 2 = became ready later than that."""
        _require_few(job_ids)
        if not job_ids:
            return []
        codes: list[int] = await self._write(
            "replay_jobs",
            state_suffix(state),
            msgspec.msgpack.encode([packed(raw_bytes(job_id)) for job_id in job_ids]),
            int(reset_attempts),
            "" if ready_before_ms is None else ready_before_ms,
        )
        return codes

    async def _promote(
        self, job_ids: Sequence[str], *, started_before_ms: int | None = None
    ) -> list[int]:
        """Per id 1 = waits now, 0 = was not delayed, 2 = was started later than that."""
        _require_few(job_ids)
        if not job_ids:
            return []
        codes: list[int] = await self._write(
            "promote_jobs",
            msgspec.msgpack.encode([packed(raw_bytes(job_id)) for job_id in job_ids]),
            "" if started_before_ms is None else started_before_ms,
        )
        return codes

    async def _write(self, script: str, *args: Any) -> Any:
        """Run a script that has its effect once, however often it is sent."""
        return await self._lanes.call(script, *args, deadline_s=self._deadline_s)

    async def _run(self, script: str, *args: Any) -> Any:
        """Run a script that is the same when run twice."""
        try:
            return await scripts.run(
                self._connection.call, script, self._keys.of("meta"), self._keys.prefix, *args
            )
        except (NotSent, ReplyLost, NotNow) as error:
            raise unavailable(self._connection.url, error) from error

    async def _read(self, *command: Any) -> Any:
        """One command that only reads."""
        try:
            return await self._connection.reader.execute_command(*command)
        except (RedisError, OSError) as error:
            raise unavailable(self._connection.url, error) from error


def require_finished(state: JobState) -> None:
    """Refuse states a job cannot be replayed from."""
    if state not in (JobState.FAILED, JobState.COMPLETED):
        raise InvalidOption(f"only failed or completed jobs can be replayed, not {state}")


def _require_few(job_ids: Sequence[str]) -> None:
    if isinstance(job_ids, str):
        raise InvalidOption(f"job ids are given as a list, not as one text: [{job_ids!r}]")
    if len(job_ids) > JOBS_PER_CALL:
        raise InvalidOption(f"at most {JOBS_PER_CALL} jobs a call, not {len(job_ids)}")
