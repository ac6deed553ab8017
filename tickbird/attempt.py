"""Run a job once: start, call, classify, end."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import random
import traceback
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Any

import msgspec

from tickbird.clock import Clock, SystemClock
from tickbird.durations import parse_duration_ms
from tickbird.errors import (
    DoNotRetry,
    InvalidOption,
    LockLost,
    RetryLater,
    UndecodableData,
    UnknownTask,
)
from tickbird.job import Outcome
from tickbird.retry import Rand, backoff_ms
from tickbird.stats import bucket_of
from tickbird.storage.wire import (
    EndedAttempt,
    KeepRule,
    TakenJob,
    encode_result,
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
    """What follows from how an attempt ended."""

    outcome: Outcome
    delay_ms: int = 0
    reason: str = ""
    """Of a final failure: `attempts` used up, `unrecoverable`, or `stalled` too often."""


def classify(job: TakenJob, error: BaseException | None, rand: Rand = random.random) -> Ruling:
    """Decide what becomes of a job from its attempt's error (None: it returned). Pure."""
    if error is None:
        return Ruling(Outcome.COMPLETED)
    if job.deferred_failure is not None:
        is_stall = job.deferred_failure == STALLED_TOO_OFTEN
        return Ruling(Outcome.FAILED, reason="stalled" if is_stall else "unrecoverable")
    if isinstance(error, DoNotRetry | UndecodableData | InvalidOption):
        return Ruling(Outcome.FAILED, reason="unrecoverable")
    failed_attempt = job.attempts_made + 1
    if failed_attempt >= job.options.attempts:
        return Ruling(Outcome.FAILED, reason="attempts")
    if isinstance(error, RetryLater):
        return Ruling(Outcome.RETRIED, delay_ms=_asked_delay_ms(error))
    options = job.options
    delay_ms = backoff_ms(
        options.backoff_type, options.backoff_ms, options.jitter, failed_attempt, rand
    )
    return Ruling(Outcome.RETRIED, delay_ms=delay_ms)


def _asked_delay_ms(error: RetryLater) -> int:
    try:
        return parse_duration_ms(error.delay, "RetryLater delay")
    except InvalidOption:
        return 0


@dataclass(slots=True)
class Attempt:
    """One run of one job in a worker's slot."""

    job: TakenJob
    tasks: Mapping[str, Task[Any, Any]]
    executor: Executor
    keep_completed: KeepRule
    keep_failed: KeepRule
    clock: Clock = field(default_factory=SystemClock)
    rand: Rand = random.random
    is_started: bool = False
    is_lock_lost: bool = False
    is_handed_back: bool = False
    call: asyncio.Task[Any] | None = None

    async def run(self) -> EndedAttempt | None:
        """Run the job and say how it ended; None when the lock was lost: nothing may be written."""
        if self.is_handed_back:
            return self._handed_back()
        self.is_started = True
        started_s = self.clock.monotonic_s()
        result, error = await self._settle()
        run_ms = (self.clock.monotonic_s() - started_s) * 1_000
        if self.is_lock_lost:
            return None
        if self.is_handed_back:
            return self._handed_back()
        return self._end(result, error, run_ms)

    def lose_lock(self, reason: str) -> None:
        """Stop the handler: its outcome counts no more. A thread cannot be stopped, only ignored.

        Once the handler is done there is nothing to stop: a renewal that crossed the finish on
        the wire finds no lock either, and the finish itself is refused if it must be.
        """
        if self.call is not None and self.call.done():
            return
        self.is_lock_lost = True
        logger.warning(
            "lock_lost job_id=%s name=%s reason=%s",
            self.job.id.decode(errors="replace"),
            self.job.name,
            reason,
        )
        if self.call is not None:
            self.call.cancel(LockLost(reason))

    def hand_back(self) -> None:
        """Stop the handler and give the job back unfinished, without spending an attempt."""
        self.is_handed_back = True
        if self.call is not None:
            self.call.cancel()

    async def _settle(self) -> tuple[bytes, BaseException | None]:
        """The encoded result, or what went wrong. Never raises, whatever a handler does."""
        self.call = asyncio.create_task(self._call())
        try:
            await asyncio.wait([self.call])
        except asyncio.CancelledError:
            self.call.cancel()
            raise
        if self.call.cancelled():
            return b"", asyncio.CancelledError("the handler was cancelled")
        error = self.call.exception()
        if error is not None:
            return b"", error
        try:
            return encode_result(self.call.result()), None
        except InvalidOption as not_json:
            return b"", InvalidOption(f"the task's result cannot be stored: {not_json}")

    async def _call(self) -> Any:
        job = self.job
        if job.deferred_failure is not None:
            raise DoNotRetry(job.deferred_failure)
        task = self.tasks.get(job.name)
        if task is None:
            raise UnknownTask(
                f"no task {job.name!r} here; this worker knows: {', '.join(sorted(self.tasks))}"
            )
        arguments = task.signature.arguments(job.data)
        try:
            if task.is_async:
                return await task.function(**arguments)
            context = contextvars.copy_context()
            call: Callable[[], Any] = lambda: context.run(task.function, **arguments)  # noqa: E731
            return await asyncio.get_running_loop().run_in_executor(self.executor, call)
        except (SystemExit, KeyboardInterrupt, StopIteration) as error:
            # These would end the loop, or be lost in it; in a task they are failures like others.
            raise RuntimeError(f"{type(error).__name__}: {error}") from error

    def _end(self, result: bytes, error: BaseException | None, run_ms: float) -> EndedAttempt:
        job = self.job
        ruling = classify(job, error, self.rand)
        keep = self._keep_rule(ruling.outcome)
        wait_ms = job.wait_ms
        return EndedAttempt(
            id=packed(job.id),
            token=packed(job.token),
            outcome=ruling.outcome.value,
            text=packed(result if error is None else _reason(error)),
            stacktrace=packed(b"" if error is None else self._stacktrace(error)),
            delay_ms=ruling.delay_ms,
            keep_count=keep.count,
            keep_age_s=keep.age_s,
            keep_limit=keep.limit,
            name=packed(raw_bytes(job.name)),
            wait_bucket=-1 if wait_ms is None else bucket_of(wait_ms),
            wait_ms=wait_ms or 0,
            run_bucket=bucket_of(run_ms),
            run_ms=round(run_ms),
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

    def _keep_rule(self, outcome: Outcome) -> KeepRule:
        """The job's own rule; else the app's, for jobs that Tickbird added; else keep all."""
        options = self.job.options
        if outcome is Outcome.COMPLETED:
            own, default = options.keep_completed, self.keep_completed
        else:
            own, default = options.keep_failed, self.keep_failed
        if own is not None:
            return own
        return default if options.is_ours else KeepRule()

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
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_globals.get("__name__", "") in _OUR_FRAMES:
        frames = frames.tb_next
    if isinstance(error, DoNotRetry | UnknownTask | UndecodableData) and frames is None:
        lines = traceback.format_exception_only(error)
    else:
        lines = traceback.format_exception(type(error), error, frames)
    return "".join(lines).rstrip("\n")[-MAX_STACKTRACE_BYTES:]


_OUR_FRAMES = frozenset({"tickbird.attempt", "tickbird.task", "concurrent.futures.thread"})


def _storable(value: str) -> str:
    """Text that UTF-8 can hold: lone surrogates become question marks."""
    return value.encode("utf-8", "replace").decode()
