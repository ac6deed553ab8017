"""One queue: its figures with small charts, and one bounded page of one of its lists."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dashboard.charts import Chart, spark
from dashboard.filters import NOTHING, duration, measure_ms, number, percent, plural, rate
from dashboard.observer.snapshot import event_name
from dashboard.problems import NotThere
from dashboard.queries.jobs import PAGE, TIME_TITLES, job_row
from dashboard.queries.overview import empty_in_of, failure_tone, is_measured, slots_of, span_of
from dashboard.queries.paging import pages_of
from dashboard.queries.workers import worker_row
from dashboard.queries.worries import is_unserved, waited_ms, worries_of
from dashboard.views import Measure, QueuePage, Tab, Tile
from tickbird.job import JobState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dashboard.observer.snapshot import QueueFigures, Snapshot
    from dashboard.queries.jobs import JobReads

TABS = {
    JobState.WAITING: "Waiting",
    JobState.PRIORITIZED: "Prioritized",
    JobState.DELAYED: "Delayed",
    JobState.ACTIVE: "Active",
    JobState.WAITING_CHILDREN: "Waiting for children",
    JobState.COMPLETED: "Completed",
    JobState.FAILED: "Dead letters",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What the query string may say. No state: the list most worth seeing."""

    state: JobState | None = None
    offset: int = 0


def require_queue(snapshot: Snapshot, label: str) -> QueueFigures:
    """The figures of a queue that exists."""
    figures = snapshot.queue(label)
    if figures is None:
        raise NotThere(
            "There is no such queue. It appears within seconds of its first job; "
            "an empty one may have been removed."
        )
    return figures


async def queue_page(snapshot: Snapshot, label: str, asked: Request, reads: JobReads) -> QueuePage:
    """The page of a queue."""
    figures = require_queue(snapshot, label)
    sample = figures.sample
    state = asked.state or _worth_seeing(figures)
    jobs = [] if sample.error else await reads.page(sample.queue, state, asked.offset)
    return QueuePage(
        label=label,
        event=event_name(sample.queue),
        paused=sample.paused,
        error=sample.error or "",
        worries=tuple(worry for worry in worries_of(snapshot) if worry.queue == label),
        tiles=_tiles(figures),
        tabs=tuple(
            Tab(state=tab, title=title, count=sample.counts.get(tab, 0), current=tab is state)
            for tab, title in TABS.items()
        ),
        state=state,
        time_title=TIME_TITLES.get(state, "added"),
        jobs=tuple(job_row(job) for job in jobs),
        pages=pages_of(asked.offset, PAGE, len(jobs), sample.counts.get(state, 0)),
        workers=tuple(worker_row(worker, sample.queue.label) for worker in sample.workers),
        foreign_workers=sample.foreign_workers,
    )


def _worth_seeing(figures: QueueFigures) -> JobState:
    """Which list to open with: what runs, else the first that is not empty."""
    counts = figures.sample.counts
    order = (
        JobState.ACTIVE,
        JobState.WAITING,
        JobState.PRIORITIZED,
        JobState.DELAYED,
        JobState.FAILED,
        JobState.COMPLETED,
        JobState.WAITING_CHILDREN,
    )
    return next((state for state in order if counts.get(state, 0)), JobState.WAITING)


def _tiles(figures: QueueFigures) -> tuple[Tile, ...]:
    sample, rates, series = figures.sample, figures.rates, figures.series
    label, span = sample.queue.label, span_of(series.at_ms)
    dead = sample.counts.get(JobState.FAILED, 0)
    measured = is_measured(figures)
    slots, slots_tone = slots_of(figures)
    empty_in, empty_tone = empty_in_of(figures)
    waiting_ms = waited_ms(figures)
    return (
        Tile(
            name="Depth",
            measure=Measure(number(sample.depth), ""),
            context=f"{rate(rates.added_per_min)} in /min" if measured else "ready to run",
            spark=spark(series.depth, label=f"depth, {span}"),
        ),
        Tile(
            name="Throughput",
            measure=Measure(rate(rates.finished_per_min) if measured else NOTHING, "/min"),
            context=f"{rate(rates.retried_per_min)} retried /min"
            if measured
            else "not measured: workers of another client",
            spark=spark(series.finished, label=f"finished per second, {span}"),
        ),
        Tile(
            name="Processing p95",
            measure=measure_ms(rates.run_p95_ms),
            context=f"p50 {duration(rates.run_p50_ms)}",
            exact="" if rates.run_p95_ms is None else f"{rates.run_p95_ms:,.1f} ms",
            spark=spark(series.run_p95_ms, label=f"processing time p95, {span}"),
        ),
        Tile(
            name="Failure rate",
            measure=Measure(percent(rates.failure_rate), "%" if rates.attempts else ""),
            context=f"{rates.failed_attempts:,} of {plural(rates.attempts, 'attempt')}"
            if rates.attempts
            else "nothing attempted",
            tone=failure_tone(rates.failure_rate),
            spark=spark(series.failure_rate, label=f"share of failed attempts, {span}"),
        ),
        Tile(
            name="Dead letters",
            measure=Measure(number(dead), ""),
            context=f"+{rate(rates.failed_per_min)} /min"
            if rates.failed_per_min
            else "none added lately",
            tone="bad" if rates.failed_per_min else "",
            spark=spark(series.failed_jobs, label=f"dead letters, {span}"),
            route="queue" if dead else "",
            queue=label,
            query={"state": str(JobState.FAILED)},
        ),
        Tile(
            name="Oldest wait",
            measure=measure_ms(waiting_ms),
            context=f"wait p95 {duration(rates.wait_p95_ms)}"
            if rates.wait_p95_ms is not None
            else ("nothing waits" if waiting_ms is None else "ready, not yet taken"),
            tone="warn" if is_unserved(figures) else "",
        ),
        Tile(
            name="Slots in use",
            measure=Measure(slots, ""),
            context=plural(len(sample.workers), "worker"),
            tone=slots_tone,
        ),
        Tile(
            name="Empty in",
            measure=Measure(empty_in.removesuffix(" at this rate"), ""),
            context=_empty_context(figures),
            tone=empty_tone,
        ),
    )


def _empty_context(figures: QueueFigures) -> str:
    sample = figures.sample
    later = sample.counts.get(JobState.DELAYED, 0)
    if sample.depth == 0 and later:
        return f"{plural(later, 'job')} due later"
    return "until resumed" if sample.paused and sample.depth else "at this minute's rate"


def chart_columns(
    figures: QueueFigures, chart: Chart
) -> tuple[Sequence[int], Sequence[Sequence[float]]]:
    """The times and the columns of a queue's chart, one per line."""
    series = figures.series
    columns: dict[str, tuple[Sequence[float], ...]] = {
        "depth": (series.depth, series.failed_jobs),
        "flow": (series.finished, series.failed),
    }
    return series.at_ms, columns[chart.kind]


def chart_rows(figures: QueueFigures, chart: Chart) -> list[tuple[int, tuple[float, ...]]]:
    """The same as a table of at most 20 rows, newest first, for those who cannot see a chart."""
    at_ms, columns = chart_columns(figures, chart)
    step = max(1, -(-len(at_ms) // 20))
    picked = range(len(at_ms) - 1, -1, -step)
    return [(at_ms[i], tuple(column[i] for column in columns)) for i in picked]
