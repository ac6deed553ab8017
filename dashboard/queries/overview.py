"""The overview: what needs you, eight figures, and the queues sorted by what hurts."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from dashboard.charts import bar, spark
from dashboard.filters import (
    NOTHING,
    duration,
    measure_ms,
    number,
    percent,
    plural,
    rate,
    size,
)
from dashboard.observer.snapshot import event_name
from dashboard.queries.paging import pages_of
from dashboard.queries.worries import is_unserved, waited_ms, worries_of
from dashboard.views import Column, Measure, Overview, QueueRow, Tile
from tickbird.job import JobState

if TYPE_CHECKING:
    from collections.abc import Callable

    from dashboard.observer.snapshot import QueueFigures, Snapshot
    from dashboard.views import Worry
    from tickbird.inspector import ServerInfo

ROWS = 200
"""Queues on one page."""
BAD_FAILURE_RATE = 0.05
WARN_FAILURE_RATE = 0.01
SOON_S = 15.0
"""Emptied within this is "now": a busy, healthy queue is never quite empty."""
BARRED = (JobState.WAITING, JobState.PRIORITIZED, JobState.ACTIVE, JobState.DELAYED)


class Sort(StrEnum):
    """By what the queues can be sorted; all but the name: most first."""

    HURT = "hurt"
    NAME = "name"
    DEPTH = "depth"
    OLDEST = "oldest"
    FLOW = "flow"
    PROCESSING = "processing"
    FAILING = "failing"
    DEAD = "dead"


NEVER = "never at this rate"
TITLES = {
    Sort.HURT: "what hurts",
    Sort.NAME: "queue",
    Sort.DEPTH: "depth",
    Sort.OLDEST: "oldest",
    Sort.FLOW: "flow",
    Sort.PROCESSING: "processing",
    Sort.FAILING: "failing",
    Sort.DEAD: "dead",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What the query string may say: a part of a name, an order, where to begin."""

    filter: str = ""
    sort: Sort = Sort.HURT
    offset: int = 0


def overview(snapshot: Snapshot, asked: Request) -> Overview:
    """The page for a snapshot."""
    worries = worries_of(snapshot)
    needle = asked.filter.casefold()
    figures = [f for f in snapshot.queues if needle in f.sample.queue.label.casefold()]
    severity = _severities(snapshot, worries)
    figures.sort(key=lambda f: _sort_key(f, asked.sort, severity))
    shown = figures[asked.offset : asked.offset + ROWS]
    return Overview(
        headline=_headline(snapshot, worries),
        calm=_calm(snapshot),
        worries=worries,
        tiles=_tiles(snapshot),
        rows=tuple(queue_row(f, severity.get(f.sample.queue.label, "")) for f in shown),
        pages=pages_of(asked.offset, ROWS, len(shown), len(figures)),
        known=len(snapshot.queues),
        filter=asked.filter,
        sort=asked.sort,
        columns={
            sort: Column(key=sort, title=TITLES[sort], current=sort is asked.sort) for sort in Sort
        },
    )


def _severities(snapshot: Snapshot, worries: tuple[Worry, ...]) -> dict[str, str]:
    """The worst severity per queue's label."""
    worst: dict[str, str] = {}
    by_alert = [(str(a.severity), a.queue.label) for a in snapshot.alerts]
    for severity, label in (*by_alert, *((w.severity, w.queue) for w in worries)):
        if worst.get(label) != "critical":
            worst[label] = severity
    return worst


def _sort_key(figures: QueueFigures, sort: Sort, severity: dict[str, str]) -> tuple[Any, ...]:
    sample, rates = figures.sample, figures.rates
    label = sample.queue.label
    rank = {"critical": 0, "warning": 1}.get(severity.get(label, ""), 2)
    by: dict[Sort, Callable[[], float]] = {
        Sort.HURT: lambda: waited_ms(figures) or 0,
        Sort.NAME: lambda: 0,
        Sort.DEPTH: lambda: sample.depth,
        Sort.OLDEST: lambda: waited_ms(figures) or 0,
        Sort.FLOW: lambda: rates.finished_per_min,
        Sort.PROCESSING: lambda: rates.run_p95_ms or 0,
        Sort.FAILING: lambda: rates.failure_rate or 0,
        Sort.DEAD: lambda: sample.counts.get(JobState.FAILED, 0),
    }
    if sort is Sort.HURT:  # whole seconds, so that rows do not dance
        return (rank, sample.paused, -(by[sort]() // 10_000), label)
    return (-by[sort](), label)


def _headline(snapshot: Snapshot, worries: tuple[Worry, ...]) -> str:
    queues = len(snapshot.queues)
    troubled = len({worry.queue for worry in worries if worry.queue})
    if any(not worry.queue for worry in worries) and not troubled:
        return "Redis needs you"
    if troubled:
        verb = "needs" if troubled == 1 else "need"
        return f"{troubled} of {plural(queues, 'queue')} {verb} you"
    if queues == 0:
        return "No queues yet"
    return "Nothing needs you yet" if _growing(snapshot) else "Nothing needs you"


def _growing(snapshot: Snapshot) -> list[str]:
    """Queues that grow and would not drain; too short a time for an alert, or it would say so."""
    return [
        figures.sample.queue.label
        for figures in snapshot.queues
        if empty_in_of(figures) == (NEVER, "bad")
    ]


def _calm(snapshot: Snapshot) -> str:
    """The sentence below the headline when nothing is wrong."""
    depth = sum(f.sample.depth for f in snapshot.queues)
    finished = snapshot.total.finished_per_min
    paused = sum(f.sample.paused for f in snapshot.queues)
    if not snapshot.queues:
        return "They appear with the first job."
    ready = f"{plural(depth, 'job')} ready" if depth else "no job waits"
    flow = f"{rate(finished)} finished a minute" if finished else "nothing runs"
    rest = f"; {plural(paused, 'queue is', 'queues are')} paused" if paused else ""
    growing = _growing(snapshot)
    watch = f" Watch {', '.join(growing[:3])}: more comes in than goes out." if growing else ""
    return f"{plural(len(snapshot.queues), 'queue')}: {ready}, {flow}{rest}.{watch}"


def queue_row(figures: QueueFigures, severity: str) -> QueueRow:
    """A queue as a row."""
    sample, rates, series = figures.sample, figures.rates, figures.series
    note, note_tone = _note(figures, severity)
    slots, slots_tone = slots_of(figures)
    empty_in, empty_tone = empty_in_of(figures)
    return QueueRow(
        label=sample.queue.label,
        event=event_name(sample.queue),
        severity=severity,
        note=note,
        note_tone=note_tone,
        paused=sample.paused,
        error=sample.error or "",
        depth=sample.depth,
        bar=bar({str(state): sample.counts.get(state, 0) for state in BARRED}),
        spark=spark(series.depth, label=f"depth, {span_of(series.at_ms)}", trend=_trend(figures)),
        oldest_ms=waited_ms(figures),
        is_measured=is_measured(figures),
        added_per_min=rates.added_per_min,
        finished_per_min=rates.finished_per_min,
        run_p50_ms=rates.run_p50_ms,
        run_p95_ms=rates.run_p95_ms,
        failure_rate=rates.failure_rate,
        failure_tone=failure_tone(rates.failure_rate),
        dead=sample.counts.get(JobState.FAILED, 0),
        dead_per_min=rates.failed_per_min,
        slots=slots,
        slots_tone=slots_tone,
        empty_in=empty_in,
        empty_tone=empty_tone,
    )


def is_measured(figures: QueueFigures) -> bool:
    """Whether the attempts of this queue are counted: ours are, those of other clients not."""
    sample = figures.sample
    only_foreign = bool(sample.foreign_workers) and not sample.workers
    return not only_foreign or figures.rates.attempts > 0


def _note(figures: QueueFigures, severity: str) -> tuple[str, str]:
    if figures.sample.error:
        return "unreadable", "bad"
    if figures.sample.paused:
        return "paused", ""
    if is_unserved(figures):
        return "no worker", "warn"
    if severity and _trend(figures) == "up":
        return "▲ rising", "bad" if severity == "critical" else "warn"
    return "", ""


def _trend(figures: QueueFigures) -> str:
    """A coarse direction for the colour of a sparkline; alerts have the exact one."""
    depth = figures.series.depth
    if len(depth) < 20:  # noqa: PLR2004 - too short to have a direction
        return "flat"
    third = len(depth) // 3
    early, late = sum(depth[:third]) / third, sum(depth[-third:]) / third
    floor = max(10.0, 0.2 * max(early, late))
    if min(late, depth[-1]) - early > floor:  # what has drained since does not rise
        return "up"
    return "down" if early - late > floor else "flat"


def span_of(at_ms: tuple[int, ...]) -> str:
    """What a sparkline covers, in words."""
    covered_ms = at_ms[-1] - at_ms[0] if at_ms else 0
    return f"last {duration(max(1_000, round(covered_ms, -3)))}"


def failure_tone(failure_rate: float | None) -> str:
    """The colour of a failure rate."""
    if failure_rate is None or failure_rate < WARN_FAILURE_RATE:
        return ""
    return "bad" if failure_rate >= BAD_FAILURE_RATE else "warn"


def slots_of(figures: QueueFigures) -> tuple[str, str]:
    """Slots in use of the workers that serve a queue, and the tone of that."""
    sample = figures.sample
    parts = []
    if sample.workers:
        busy = sum(worker.busy for worker in sample.workers)
        parts.append(f"{busy:,}/{sum(worker.concurrency for worker in sample.workers):,}")
    if sample.foreign_workers:
        parts.append(
            f"+{sample.foreign_workers} other" if parts else f"{sample.foreign_workers} other"
        )
    if not parts:
        return "none", "warn" if is_unserved(figures) else ""
    return " ".join(parts), ""


def empty_in_of(figures: QueueFigures) -> tuple[str, str]:
    """When a queue will be empty, and the tone of that."""
    sample, drain_s = figures.sample, figures.rates.drain_s
    if sample.depth == 0:
        return "now", ""
    if sample.paused:
        return "paused", ""
    finished_per_s = figures.rates.finished_per_min / 60
    if finished_per_s and sample.depth / finished_per_s < SOON_S:
        return "now", ""
    if drain_s is None:
        tone = "bad" if _trend(figures) == "up" else "warn"
        return NEVER, tone
    return duration(drain_s * 1_000), ""


def _tiles(snapshot: Snapshot) -> tuple[Tile, ...]:
    total = snapshot.total
    samples = [f.sample for f in snapshot.queues]
    depth = sum(s.depth for s in samples)
    dead = sum(s.counts.get(JobState.FAILED, 0) for s in samples)
    workers = {w.id: w for s in samples for w in s.workers}
    busy, slots = (
        sum(w.busy for w in workers.values()),
        sum(w.concurrency for w in workers.values()),
    )
    waiting = [f for f in snapshot.queues if not f.sample.paused and waited_ms(f) is not None]
    oldest = max(waiting, key=lambda f: waited_ms(f) or 0, default=None)
    return (
        Tile(
            name="Throughput",
            measure=Measure(rate(total.finished_per_min), "/min"),
            context=f"{rate(total.added_per_min)} in /min",
        ),
        Tile(
            name="Failed attempts",
            measure=Measure(percent(total.failure_rate), "%" if total.attempts else ""),
            context=f"{total.failed_attempts:,} of {total.attempts:,} attempts"
            if total.attempts
            else "nothing attempted",
            tone=failure_tone(total.failure_rate),
        ),
        Tile(
            name="Processing p95",
            measure=measure_ms(total.run_p95_ms),
            exact=_exact_ms(total.run_p95_ms),
            context=f"p50 {duration(total.run_p50_ms)}",
        ),
        Tile(
            name="Oldest wait",
            measure=measure_ms(waited_ms(oldest) if oldest else None),
            exact=_exact_ms(waited_ms(oldest) if oldest else None),
            context=oldest.sample.queue.label if oldest else "nothing waits",
            route="queue" if oldest else "",
            queue=oldest.sample.queue.label if oldest else "",
        ),
        Tile(name="Depth", measure=Measure(number(depth), ""), context=_drift(snapshot)),
        Tile(
            name="Dead letters",
            measure=Measure(number(dead), ""),
            context=f"+{rate(total.failed_per_min)} /min"
            if total.failed_per_min
            else "none added lately",
            tone="bad" if total.failed_per_min else "",
            route="dead_letters",
        ),
        Tile(
            name="Slots in use",
            measure=Measure(number(busy), f"/ {slots:,}"),
            context=plural(len(workers), "worker"),
            route="workers",
        ),
        _server_tile(snapshot.server),
    )


def _drift(snapshot: Snapshot) -> str:
    drift = 0
    for figures in snapshot.queues:
        if figures.series.depth:
            drift += figures.series.depth[-1] - figures.series.depth[-60:][0]
    if drift == 0:
        return "steady this minute"
    return f"{drift:+,} this minute"


def _server_tile(server: ServerInfo | None) -> Tile:
    if server is None:
        return Tile(name="Redis", measure=Measure(NOTHING, ""), context="unknown")
    used = size(server.memory_bytes)
    persistence = f"AOF {server.aof_fsync}" if server.aof else "no AOF"
    is_unsafe = server.memory_policy != "noeviction"
    return Tile(
        name=server.product.capitalize(),
        measure=used,
        exact=f"{server.product} {server.version}, {server.memory_bytes:,} bytes",
        context=f"{server.memory_policy}, {persistence}",
        tone="bad" if is_unsafe else "",
    )


def _exact_ms(ms: float | None) -> str:
    return "" if ms is None else f"{ms:,.1f} ms"
