"""Figures of queues as the sampler would hand them out, for tests of what reads them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dashboard.observer.snapshot import QueueFigures, QueueSeries, Rates, Snapshot
from tickbird.inspector import QueueSample, RunningJob, WorkerInfo
from tickbird.job import JobState, QueueRef
from tickbird.stats import QueueStats

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dashboard.alerts.rules import Alert

NOW_MS = 1_700_000_000_000
MAIL = QueueRef("mail")


def worker(
    *,
    id: str = "w1",  # noqa: A002 - the field's name
    queues: tuple[str, ...] = ("mail",),
    concurrency: int = 10,
    busy: int = 0,
    running: int = 0,
    stopping: bool = False,
) -> WorkerInfo:
    return WorkerInfo(
        id=id,
        host="host",
        pid=1,
        version="1",
        started_at_ms=NOW_MS,
        seen_at_ms=NOW_MS,
        queues=queues,
        concurrency=concurrency,
        busy=busy,
        stopping=stopping,
        running=tuple(
            RunningJob(id=str(i), name="send", started_at_ms=NOW_MS) for i in range(running)
        ),
    )


def series_of(depths: Sequence[int], *, at_ms: int = NOW_MS, step_s: int = 1) -> QueueSeries:
    """A series whose last point is at `at_ms`."""
    n = len(depths)
    zeros = (0.0,) * n
    return QueueSeries(
        at_ms=tuple(at_ms - (n - 1 - i) * step_s * 1_000 for i in range(n)),
        depth=tuple(depths),
        failed_jobs=(0,) * n,
        finished=zeros,
        failed=zeros,
        run_p95_ms=(None,) * n,
        failure_rate=(None,) * n,
    )


def figures(
    *,
    queue: QueueRef = MAIL,
    at_ms: int = NOW_MS,
    depths: Sequence[int] = (0,),
    minutes: Sequence[int] = (),
    counts: Mapping[JobState, int] | None = None,
    paused: bool = False,
    oldest_ready_at_ms: int | None = None,
    stats: QueueStats | None = None,
    workers: Sequence[WorkerInfo] = (),
    foreign_workers: int = 0,
    error: str | None = None,
    rates: Rates | None = None,
    oldest_failed_at_ms: int | None = None,
    is_shared: bool = False,
) -> QueueFigures:
    """A queue whose depth has been `depths`, second by second up to `at_ms`."""
    return QueueFigures(
        sample=QueueSample(
            queue=queue,
            at_ms=at_ms,
            counts={state: 0 for state in JobState if state is not JobState.UNKNOWN}
            | dict(counts or {}),
            depth=depths[-1],
            paused=paused,
            oldest_ready_at_ms=oldest_ready_at_ms,
            stats=stats or QueueStats(),
            workers=tuple(workers),
            foreign_workers=foreign_workers,
            error=error,
            oldest_failed_at_ms=oldest_failed_at_ms,
            is_shared=is_shared,
        ),
        series=series_of(depths[-600:], at_ms=at_ms),
        minutes=series_of(minutes, at_ms=at_ms, step_s=60),
        rates=rates or Rates(window_s=60.0, finished_per_min=60.0),
    )


def snapshot(
    *queues: QueueFigures, up: bool = True, alerts: Sequence[Alert] = (), at_ms: int = NOW_MS
) -> Snapshot:
    return Snapshot(
        at_ms=at_ms,
        taken_at_s=1.0,
        up=up,
        error=None if up else "Redis does not answer",
        server=None,
        queues=queues,
        alerts=tuple(alerts),
        sample_duration_s=0.0125,
    )
