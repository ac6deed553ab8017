"""From monotonic counters to rates and series; pure. The sampler calls it once per sample."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from dashboard.observer.snapshot import QueueSeries, Rates
from tickbird.job import JobState, Outcome
from tickbird.stats import Histogram

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tickbird.inspector import QueueSample

WINDOW_MS = 60_000
MARK_EVERY_MS = 5_000
"""How far apart marks are kept: the window is exact to this much."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """The counters of one queue (or of all) at one moment; rates are differences of two."""

    at_ms: int
    depth: int = 0
    added: int = 0
    completed: int = 0
    retried: int = 0
    failed: int = 0
    run: Histogram = field(default_factory=Histogram)
    wait: Histogram = field(default_factory=Histogram)

    @classmethod
    def of(cls, sample: QueueSample) -> Mark:
        """The mark of a sample."""
        stats = sample.stats
        return cls(
            at_ms=sample.at_ms,
            depth=sample.depth,
            added=stats.added,
            completed=stats.attempts(Outcome.COMPLETED),
            retried=stats.attempts(Outcome.RETRIED),
            failed=stats.attempts(Outcome.FAILED),
            run=stats.run(),
            wait=stats.wait,
        )

    @classmethod
    def since(cls, earlier: Mark, later: Mark) -> Mark:
        """What was counted between two marks; never negative, counters may be reset.

        `at_ms` is the time between them and `depth` how much the depth went down.
        """
        return cls(
            at_ms=max(0, later.at_ms - earlier.at_ms),
            depth=earlier.depth - later.depth,
            added=max(0, later.added - earlier.added),
            completed=max(0, later.completed - earlier.completed),
            retried=max(0, later.retried - earlier.retried),
            failed=max(0, later.failed - earlier.failed),
            run=later.run.since(earlier.run),
            wait=later.wait.since(earlier.wait),
        )

    @classmethod
    def total(cls, marks: Iterable[Mark], at_ms: int) -> Mark:
        """The sum over several queues (of marks, or of differences of marks)."""
        depth = added = completed = retried = failed = 0
        run, wait = Histogram(), Histogram()
        for mark in marks:
            depth += mark.depth
            added += mark.added
            completed += mark.completed
            retried += mark.retried
            failed += mark.failed
            run += mark.run
            wait += mark.wait
        return cls(
            at_ms=at_ms,
            depth=depth,
            added=added,
            completed=completed,
            retried=retried,
            failed=failed,
            run=run,
            wait=wait,
        )


def keep_marks(marks: Sequence[Mark], latest: Mark) -> tuple[Mark, ...]:
    """The marks to keep when `latest` arrives: enough to look back one window, no more."""
    kept = list(marks)
    if not kept or latest.at_ms - kept[-1].at_ms >= MARK_EVERY_MS:
        kept.append(latest)
    while len(kept) > 1 and latest.at_ms - kept[1].at_ms >= WINDOW_MS:
        kept.pop(0)
    return tuple(kept)


def rates_of(moved: Mark, depth: int) -> Rates:
    """The rates of what `Mark.since` gave, for a queue that is `depth` deep now."""
    seconds = moved.at_ms / 1_000
    attempts = moved.completed + moved.retried + moved.failed
    if seconds <= 0:
        return Rates(drain_s=0.0 if depth == 0 else None)
    per_min = 60 / seconds
    return Rates(
        window_s=seconds,
        added_per_min=moved.added * per_min,
        finished_per_min=(moved.completed + moved.failed) * per_min,
        failed_per_min=moved.failed * per_min,
        retried_per_min=moved.retried * per_min,
        attempts=attempts,
        failed_attempts=moved.retried + moved.failed,
        failure_rate=(moved.retried + moved.failed) / attempts if attempts else None,
        run_p50_ms=moved.run.quantile_ms(0.5),
        run_p95_ms=moved.run.quantile_ms(0.95),
        wait_p95_ms=moved.wait.quantile_ms(0.95),
        drain_s=_drain_s(depth, moved.depth / seconds),
    )


def _drain_s(depth: int, falls_per_s: float) -> float | None:
    if depth == 0:
        return 0.0
    return depth / falls_per_s if falls_per_s > 0 else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One point of a QueueSeries, field by field."""

    at_ms: int
    depth: int
    failed_jobs: int
    finished: float
    failed: float
    run_p95_ms: float | None
    failure_rate: float | None


def point_of(sample: QueueSample, step: Mark | None, rates: Rates) -> Point:
    """The point of a sample; `step` is what moved since the sample before (None: the first)."""
    seconds = step.at_ms / 1_000 if step else 0.0
    finished = failed = 0.0
    if step and seconds > 0:
        finished = round((step.completed + step.failed) / seconds, 3)
        failed = round(step.failed / seconds, 3)
    return Point(
        at_ms=sample.at_ms,
        depth=sample.depth,
        failed_jobs=sample.counts.get(JobState.FAILED, 0),
        finished=finished,
        failed=failed,
        run_p95_ms=rates.run_p95_ms,
        failure_rate=rates.failure_rate,
    )


def append(series: QueueSeries, point: Point, limit: int) -> QueueSeries:
    """The series with one more point, its oldest dropped beyond `limit`."""
    columns: dict[str, Any] = {
        column.name: (*getattr(series, column.name), getattr(point, column.name))[-limit:]
        for column in fields(QueueSeries)
    }
    return QueueSeries(**columns)


def minute_of(seconds: QueueSeries, minute_ms: int) -> Point | None:
    """One point for the minute that began at `minute_ms`: means of flows, last of the rest."""
    inside = [i for i, at_ms in enumerate(seconds.at_ms) if minute_ms <= at_ms < minute_ms + 60_000]
    if not inside:
        return None
    last = inside[-1]
    return Point(
        at_ms=minute_ms,
        depth=seconds.depth[last],
        failed_jobs=seconds.failed_jobs[last],
        finished=round(sum(seconds.finished[i] for i in inside) / len(inside), 3),
        failed=round(sum(seconds.failed[i] for i in inside) / len(inside), 3),
        run_p95_ms=seconds.run_p95_ms[last],
        failure_rate=seconds.failure_rate[last],
    )
