"""Run a job once: start, call, classify, end."""

from __future__ import annotations

import asyncio
import logging
import random
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from tickbird.clock import Clock, SystemClock
from tickbird.context import Context
from tickbird.durations import parse_duration_ms
from tickbird.errors import (
    DoNotRetry,
    InvalidOption,
    JobCancelled,
    JobTimeout,
    LockLost,
    OutcomeUnknown,
    Postpone,
    PutBack,
    RateLimited,
    RedisUnavailable,
    RetryLater,
    UndecodableData,
    UnknownTask,
    WaitForChildren,
)
from tickbird.job import Outcome
from tickbird.options import DEFAULT_KEEP, Keep
from tickbird.processes import ChildError
from tickbird.queue import Queue
from tickbird.retry import Backoff, Rand, Retry, backoff_ms
from tickbird.runners import Run, Runners
from tickbird.stats import bucket_of
from tickbird.storage.wire import (
    CHILDREN_FAILED,
    CHILDREN_PENDING,
    EndedAttempt,
    KeepRule,
    TakenJob,
    encode_result,
    keep_rule,
    packed,
    raw_bytes,
    stacktraces,
)
from tickbird.task import Task

logger = logging.getLogger(__name__)

STALLED_TOO_OFTEN = "job stalled more than allowable limit"
MAX_STACKTRACES = 20
MAX_STACKTRACE_BYTES = 64 * 1024
MAX_REASON_BYTES = 8 * 1024


@dataclass(frozen=True, slots=True)
class Ruling:
    """What follows from how an attempt ended: an outcome lib/finish.lua knows."""

    outcome: str
    delay_ms: int = 0
    reason: str = ""
    """Of a final failure: `attempts` used up, `unrecoverable`, `stalled` too often, `cancelled`."""


def classify(
    job: TakenJob,
    error: BaseException | None,
    retry: Retry | None = None,
    rand: Rand = random.random,
) -> Ruling:
    """Decide what becomes of a job from its attempt's error (None: it returned). Pure.

    `retry` is the task's own policy, where the task is known: the job's stored options say how
    often and how long, the policy which errors are worth it, or a delay of its own.
    """
    if error is None:
        return Ruling(Outcome.COMPLETED)
    steered = _steer(error) if job.deferred_failure is None else None
    if steered is not None:
        return steered
    reason = _reason_to_give_up(job, error, retry)
    delay_ms = None if reason else _delay_ms(job, error, retry, rand)
    if delay_ms is None:
        return Ruling(Outcome.FAILED, reason=reason or "unrecoverable")
    return Ruling(Outcome.RETRIED, delay_ms=delay_ms)


def _reason_to_give_up(job: TakenJob, error: BaseException, retry: Retry | None) -> str:
    """Why there is no further attempt; empty when there may be one."""
    reason = ""
    if job.deferred_failure is not None:
        reason = "stalled" if job.deferred_failure == STALLED_TOO_OFTEN else "unrecoverable"
    elif isinstance(error, JobCancelled):
        reason = "cancelled"
    elif isinstance(error, DoNotRetry | UndecodableData | InvalidOption) or (
        retry is not None and not isinstance(error, RetryLater) and not retry.is_worth_it(error)
    ):
        reason = "unrecoverable"
    elif job.attempts_made + 1 >= job.options.attempts:
        reason = "attempts"
    return reason


def _steer(error: BaseException) -> Ruling | None:
    """The moves that spend no attempt; None for the steering that ends or retries one."""
    if isinstance(error, Postpone):
        return Ruling("postponed", delay_ms=_asked_delay_ms(error.delay))
    if isinstance(error, PutBack):
        return Ruling("handed_back")
    if isinstance(error, RateLimited):
        return Ruling("handed_back", delay_ms=_asked_delay_ms(error.delay))
    if isinstance(error, WaitForChildren):
        return Ruling("waiting_children")
    return None


def _delay_ms(job: TakenJob, error: BaseException, retry: Retry | None, rand: Rand) -> int | None:
    """The delay before the next attempt; None where the task's own function says there is none."""
    failed_attempt = job.attempts_made + 1
    if isinstance(error, RetryLater):
        return _asked_delay_ms(error.delay)
    if retry is not None and not isinstance(retry.backoff, Backoff):
        asked = retry.backoff(failed_attempt, error)
        return None if asked is None else _asked_delay_ms(asked)
    options = job.options
    return backoff_ms(
        options.backoff_type, options.backoff_ms, options.jitter, failed_attempt, rand
    )


def _asked_delay_ms(delay: Any) -> int:
    """A delay that a task asked for; one that makes no sense counts as a second."""
    try:
        return parse_duration_ms(delay, "delay")
    except InvalidOption:
        return 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptSettings:
    """What all attempts of a worker have in common."""

    tasks: Mapping[str, Task[Any, Any]]
    runners: Runners
    keep_completed: Keep
    keep_failed: Keep
    max_started: int | None = None


@dataclass(slots=True)
class Attempt:
    """One run of one job in a worker's slot."""

    job: TakenJob
    queue: Queue
    settings: AttemptSettings
    clock: Clock = field(default_factory=SystemClock)
    rand: Rand = random.random
    is_started: bool = False
    is_lock_lost: bool = False
    is_handed_back: bool = False
    _stopped_by: BaseException | None = None
    _call: asyncio.Task[Any] | None = None
    _run: Run | None = None
    _context: Context | None = None
    _run_ms: float = 0.0

    async def run(self) -> EndedAttempt | None:
        """Run the job and say how it ended; None when the lock was lost: nothing may be written."""
        if self.is_handed_back or not await self._add_next_iteration():
            return self._handed_back()
        self.is_started = True
        started_s = self.clock.monotonic_s()
        result, error = await self._settle()
        self._run_ms = (self.clock.monotonic_s() - started_s) * 1_000
        if self.is_lock_lost:
            return None
        if self.is_handed_back:
            return self._handed_back()
        return self._end(result, error)

    def refuse(self, code: int) -> EndedAttempt | None:
        """How the attempt ends after all, when the server has refused to call it completed."""
        if code == CHILDREN_PENDING:
            return self._end(b"", RuntimeError("the job returned while its children are pending"))
        if code == CHILDREN_FAILED:
            return self._end(b"", DoNotRetry("a child of the job has failed"))
        return None

    def lose_lock(self, reason: str) -> None:
        """Stop the handler: its outcome counts no more.

        Once the handler is done there is nothing to stop: a renewal that crossed the finish on
        the wire finds no lock either, and the finish itself is refused if it must be.
        """
        if self._call is not None and self._call.done():
            return
        self.is_lock_lost = True
        logger.warning(
            "lock_lost job_id=%s name=%s reason=%s",
            self.job.id.decode(errors="replace"),
            self.job.name,
            reason,
        )
        self._interrupt(LockLost(reason))

    def cancel(self, reason: str) -> None:
        """Stop the handler; the job fails for good with this reason."""
        self._interrupt(JobCancelled(reason))

    def hand_back(self) -> None:
        """Stop the handler and give the job back unfinished, without spending an attempt.

        The worker is leaving: a thread that cannot be stopped is not waited for.
        """
        self.is_handed_back = True
        self._interrupt(JobCancelled("the worker stops"))
        if self._call is not None:
            self._call.cancel()

    def _interrupt(self, error: BaseException) -> None:
        if self._stopped_by is None:
            self._stopped_by = error
        if self._context is not None:
            self._context.is_cancelled = True
        if self._run is not None:
            self._run.interrupt(error)
        elif self._call is not None:
            self._call.cancel()

    async def _add_next_iteration(self) -> bool:
        """Add the next job of this job's schedule, before anything of this one runs.

        False when that is not certain: the job goes back then, or the schedule would end here.
        """
        if self.job.schedule_id is None:
            return True
        try:
            await self.queue.schedules.iterate(self.job)
        except (RedisUnavailable, OutcomeUnknown) as error:
            logger.warning("schedule_not_continued id=%s error=%s", self.job.schedule_id, error)
            return False
        return True

    async def _settle(self) -> tuple[bytes, BaseException | None]:
        """The encoded result, or what went wrong. Never raises, whatever a handler does."""
        self._call = asyncio.create_task(self._make_call())
        try:
            await self._wait_for(self._call)
        except asyncio.CancelledError:
            self._call.cancel()
            raise
        if self._stopped_by is not None:
            # Whatever the handler made of being stopped. Its exception, if any, is taken note of.
            if not self._call.cancelled():
                self._call.exception()
            return b"", self._stopped_by
        if self._call.cancelled():
            return b"", asyncio.CancelledError("the handler was cancelled")
        error = self._call.exception()
        if error is not None:
            return b"", error
        try:
            return encode_result(self._call.result()), None
        except InvalidOption as not_json:
            return b"", InvalidOption(f"the task's result cannot be stored: {not_json}")

    async def _wait_for(self, call: asyncio.Task[Any]) -> None:
        """Wait for the handler's end; past its timeout stop it, then wait for what it makes of it."""
        timeout_ms = self.job.options.timeout_ms
        await asyncio.wait([call], timeout=None if timeout_ms is None else timeout_ms / 1_000)
        if call.done():
            return
        self._interrupt(JobTimeout(f"the attempt ran longer than {timeout_ms or 0} ms"))
        await asyncio.wait([call])

    async def _make_call(self) -> Any:
        job = self.job
        if job.deferred_failure is not None:
            raise DoNotRetry(job.deferred_failure)
        limit = self.settings.max_started
        if limit is not None and job.attempts_started > limit:
            raise DoNotRetry(f"started {job.attempts_started} times, at most {limit} are allowed")
        task = self.settings.tasks.get(job.name)
        if task is None:
            known = ", ".join(sorted(self.settings.tasks))
            raise UnknownTask(f"no task {job.name!r} here; this worker knows: {known}")
        args: tuple[Any, ...] = ()
        if task.wants_context:
            self._context = Context(job, self.queue, asyncio.get_running_loop())
            args = (self._context,)
        try:
            self._run = self.settings.runners.prepare(task, args, job.data)
            return await self._run.result()
        except (SystemExit, KeyboardInterrupt, StopIteration) as error:
            # These would end the loop, or be lost in it; in a task they are failures like others.
            raise RuntimeError(f"{type(error).__name__}: {error}") from error

    def _end(self, result: bytes, error: BaseException | None) -> EndedAttempt:
        job = self.job
        task = self.settings.tasks.get(job.name)
        try:
            ruling = classify(job, error, None if task is None else task.retry, self.rand)
        except Exception as own:  # the task's own back-off function
            logger.exception("backoff_failed name=%s", job.name)
            error, ruling = own, Ruling(Outcome.FAILED, reason="unrecoverable")
        keep, is_default = self._keep_rule(ruling.outcome)
        wait_ms = job.wait_ms
        return EndedAttempt(
            id=packed(job.id),
            token=packed(job.token),
            outcome=str(ruling.outcome),
            text=packed(result if error is None else _reason(error)),
            stacktrace=packed(b"" if error is None else self._stacktrace(error)),
            delay_ms=ruling.delay_ms,
            keep_count=keep.count,
            keep_age_s=keep.age_s,
            keep_limit=keep.limit,
            is_default_rule=is_default,
            name=packed(raw_bytes(job.name)),
            wait_bucket=-1 if wait_ms is None else bucket_of(wait_ms),
            wait_ms=wait_ms or 0,
            run_bucket=bucket_of(self._run_ms),
            run_ms=round(self._run_ms),
            attempts=job.options.attempts,
            reason=ruling.reason,
            lifo=job.options.lifo,
        )

    def _handed_back(self) -> EndedAttempt:
        return EndedAttempt(
            id=packed(self.job.id),
            token=packed(self.job.token),
            outcome="handed_back",
            started=self.is_started,
        )

    def _keep_rule(self, outcome: str) -> tuple[KeepRule, bool]:
        """The job's own rule; else the app's, for jobs that Tickbird added; else keep all.

        Also whether it is a rule that nobody has asked for.
        """
        options = self.job.options
        if outcome == Outcome.COMPLETED:
            own, keep = options.keep_completed, self.settings.keep_completed
        else:
            own, keep = options.keep_failed, self.settings.keep_failed
        if own is not None:
            return own, False
        if not options.is_ours:
            return KeepRule(), False
        return keep_rule(keep), keep is DEFAULT_KEEP[outcome == Outcome.COMPLETED]

    def _stacktrace(self, error: BaseException) -> bytes:
        limit = self.job.options.stack_traces
        limit = MAX_STACKTRACES if limit is None else min(limit, MAX_STACKTRACES)
        if limit == 0:
            return b"[]"
        traces = [*stacktraces(self.job.stacktrace), _trace(error)][-limit:]
        return msgspec.json.encode([_storable(trace) for trace in traces])


def _reason(error: BaseException) -> bytes:
    reason = _storable(str(error)) or type(error).__name__
    return reason.encode()[:MAX_REASON_BYTES].decode(errors="ignore").encode()


def _trace(error: BaseException) -> str:
    """The traceback from the task's own first frame on; ours above it tell a user nothing."""
    if isinstance(error, ChildError) and error.remote_trace:
        return error.remote_trace.rstrip("\n")[-MAX_STACKTRACE_BYTES:]
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_globals.get("__name__", "") in _OUR_FRAMES:
        frames = frames.tb_next
    if frames is None:
        lines = traceback.format_exception_only(error)
    else:
        lines = traceback.format_exception(type(error), error, frames)
    return "".join(lines).rstrip("\n")[-MAX_STACKTRACE_BYTES:]


_OUR_FRAMES = frozenset(
    {"tickbird.attempt", "tickbird.runners", "tickbird.task", "concurrent.futures.thread"}
)


def _storable(value: str) -> str:
    """Text that UTF-8 can hold: lone surrogates become question marks."""
    return value.encode("utf-8", "replace").decode()
