"""The Prometheus page: a snapshot as text. docs/metrics.md says what each metric means.

It reads the snapshot and nothing else, so a scrape costs Redis nothing; the caller may
keep the result for as long as the snapshot is the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from dashboard.alerts.rules import RULES, Severity
from tickbird import JobState, Outcome, WorkerInfo, __version__
from tickbird.stats import Histogram

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from prometheus_client.core import Metric

    from dashboard.observer.snapshot import Snapshot
    from tickbird import QueueSample
    from tickbird.stats import TaskStats

# Milliseconds, all of them bounds of tickbird.stats.BOUNDS_MS, so that the sums are exact.
WAIT_BUCKETS_MS = (
    10, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 30_000, 60_000,
    300_000, 600_000, 1_800_000, 3_600_000, 21_600_000,
)  # fmt: skip
DURATION_BUCKETS_MS = (
    5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 30_000, 60_000,
    300_000, 600_000, 1_800_000, 3_600_000,
)  # fmt: skip

_STATES = tuple(state for state in JobState if state is not JobState.UNKNOWN)
_FINAL = (Outcome.COMPLETED, Outcome.FAILED)
_REASONS = ("attempts", "unrecoverable", "stalled")
_SOURCES = ("failed", "completed")
_NOTHING = Histogram()
_WORKER_STATES = ("busy", "idle", "stopping")


def render(snapshot: Snapshot, accept: str | None) -> tuple[bytes, str]:
    """The page and its content type: OpenMetrics where `accept` asks for it, else plain text."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_SnapshotCollector(snapshot))
    try:
        encode, content_type = choose_encoder(accept or "")
        return encode(registry), content_type
    except (TypeError, ValueError):  # the header holds a version that is none
        encode, content_type = choose_encoder("")
        return encode(registry), content_type


class _SnapshotCollector(Collector):
    """One snapshot's metrics; made for one page and thrown away."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        # A queue that cannot be read has no figures, and zeros would look like good news.
        self._queues: list[tuple[str, QueueSample]] = [
            (clean(figures.sample.queue.label), figures.sample)
            for figures in snapshot.queues
            if figures.sample.error is None
        ]

    def collect(self) -> Iterator[Metric]:
        """Everything; without Redis only what this process knows by itself."""
        yield from self._process()
        if self._snapshot.up:
            yield from self._queues_now()
            yield from self._workers()
            yield self._alerts()
            yield from self._jobs()
            yield from self._durations()

    def _process(self) -> Iterator[Metric]:
        yield _gauge(
            "up", "Whether Redis answered the last sample (1) or not (0).", self._snapshot.up
        )
        yield _gauge(
            "leader", "Whether this process observes the queues (1) or leaves it to another (0).", 1
        )
        build = InfoMetricFamily("tickbird_build", "The installed version.")
        build.add_metric([], {"version": __version__})
        yield build
        yield _gauge(
            "observer_sample_duration_seconds",
            "How long the last successful sample of all queues took.",
            self._snapshot.sample_duration_s,
        )
        yield _gauge(
            "observer_last_success_timestamp_seconds",
            "When Redis was last sampled, by its own clock; 0: never.",
            self._snapshot.at_ms / 1_000,
        )
        actions = CounterMetricFamily(
            "tickbird_dashboard_actions",
            "What users did through this process since it started.",
            labels=("action", "result"),
        )
        for (action, result), count in sorted(self._snapshot.actions.items()):
            actions.add_metric((clean(action), clean(result)), count)
        yield actions

    def _queues_now(self) -> Iterator[Metric]:
        jobs = _gauges("queue_jobs", "Jobs in each state.", "queue", "state")
        depth = _gauges(
            "queue_depth",
            "Jobs ready to run: waiting, prioritized, and delayed that are due.",
            "queue",
        )
        age = _gauges(
            "queue_oldest_job_age_seconds",
            "Age of the oldest job that is ready to run; 0: none is.",
            "queue",
            "state",
        )
        paused = _gauges("queue_paused", "Whether the queue is paused (1) or not (0).", "queue")
        letters = _gauges("dlq_jobs", "Dead letters: failed jobs that are kept.", "queue")
        for queue, sample in self._queues:
            for state in _STATES:
                jobs.add_metric((queue, state.value), sample.counts.get(state, 0))
            depth.add_metric((queue,), sample.depth)
            age.add_metric((queue, "waiting"), _oldest_age_s(sample))
            paused.add_metric((queue,), sample.paused)
            letters.add_metric((queue,), sample.counts.get(JobState.FAILED, 0))
        yield from (jobs, depth, age, paused, letters)

    def _workers(self) -> Iterator[Metric]:
        of_queue = _gauges(
            "queue_workers", "Workers that serve the queue, other BullMQ clients included.", "queue"
        )
        slots = _gauges(
            "queue_slots",
            "Slots of our workers: busy with jobs of the queue, or free for them.",
            "queue",
            "state",
        )
        alive: dict[str, WorkerInfo] = {}
        for queue, sample in self._queues:
            of_queue.add_metric((queue,), len(sample.workers) + sample.foreign_workers)
            busy = sum(_busy_on_queue(worker) for worker in sample.workers)
            free = sum(max(0, w.concurrency - w.busy) for w in sample.workers if not w.stopping)
            slots.add_metric((queue, "busy"), busy)
            slots.add_metric((queue, "free"), free)
            alive.update((worker.id, worker) for worker in sample.workers)
        workers = _gauges("workers", "Our workers by what they do.", "state")
        states = [_state_of(worker) for worker in alive.values()]
        for state in _WORKER_STATES:
            workers.add_metric((state,), states.count(state))
        yield from (of_queue, slots, workers)

    def _alerts(self) -> Metric:
        firing = _gauges("alerts_firing", "Alerts that fire now.", "rule", "severity")
        alerts = [(alert.rule, alert.severity) for alert in self._snapshot.alerts]
        for rule in RULES:
            for severity in Severity:
                firing.add_metric((rule.name, severity.value), alerts.count((rule.name, severity)))
        return firing

    def _jobs(self) -> Iterator[Metric]:
        added = _counters("jobs_added", "Jobs added.", "queue", "task")
        attempts = _counters("job_attempts", "Attempts that ended.", "queue", "task", "outcome")
        finished = _counters(
            "jobs_finished", "Jobs that ended for good.", "queue", "task", "outcome"
        )
        retried = _counters(
            "jobs_retried", "Failed attempts that another one follows.", "queue", "task"
        )
        dead = _counters(
            "jobs_dead_lettered", "Jobs that became dead letters.", "queue", "task", "reason"
        )
        replayed = _counters(
            "jobs_replayed",
            "Finished jobs put back by hand, by the state they were in.",
            "queue",
            "source",
        )
        stalled = _counters(
            "jobs_stalled", "Jobs whose lock ran out while they were active.", "queue"
        )
        for queue, task, stats in self._tasks():
            added.add_metric((queue, task), stats.added)
            for outcome in Outcome:
                attempts.add_metric((queue, task, outcome.value), stats.attempts.get(outcome, 0))
            for outcome in _FINAL:
                finished.add_metric((queue, task, outcome.value), stats.attempts.get(outcome, 0))
            retried.add_metric((queue, task), stats.attempts.get(Outcome.RETRIED, 0))
            for reason, count in _from_zero(_REASONS, stats.dead_lettered):
                dead.add_metric((queue, task, reason), count)
        for queue, sample in self._queues:
            for source, count in _from_zero(_SOURCES, sample.stats.replayed):
                replayed.add_metric((queue, source), count)
            stalled.add_metric((queue,), sample.stats.stalled)
        yield from (added, attempts, finished, retried, dead, replayed, stalled)

    def _durations(self) -> Iterator[Metric]:
        wait = HistogramMetricFamily(
            "tickbird_job_wait_seconds",
            "From ready to run until taken by a worker.",
            labels=("queue",),
        )
        for queue, sample in self._queues:
            _add_histogram(wait, (queue,), sample.stats.wait, WAIT_BUCKETS_MS)
        run = HistogramMetricFamily(
            "tickbird_job_duration_seconds",
            "Processing time of one attempt, from taken to ended.",
            labels=("queue", "task", "outcome"),
        )
        for queue, task, stats in self._tasks():
            for outcome in Outcome:
                histogram = stats.run.get(outcome, _NOTHING)
                _add_histogram(run, (queue, task, outcome.value), histogram, DURATION_BUCKETS_MS)
        yield from (wait, run)

    def _tasks(self) -> Iterator[tuple[str, str, TaskStats]]:
        for queue, sample in self._queues:
            for name, stats in sorted(sample.stats.tasks.items()):
                yield queue, clean(name), stats


def clean(value: str) -> str:
    r"""A label value that is valid UTF-8: lone surrogates become \udcNN. The encoder escapes the rest."""
    return value.encode("utf-8", "backslashreplace").decode("utf-8")


def _gauge(name: str, documentation: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"tickbird_{name}", documentation, value=value)


def _gauges(name: str, documentation: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"tickbird_{name}", documentation, labels=labels)


def _counters(name: str, documentation: str, *labels: str) -> CounterMetricFamily:
    """A family of counters; the library appends `_total` to the name."""
    return CounterMetricFamily(f"tickbird_{name}", documentation, labels=labels)


def _add_histogram(
    family: HistogramMetricFamily,
    labels: tuple[str, ...],
    histogram: Histogram,
    bounds_ms: tuple[int, ...],
) -> None:
    buckets: list[tuple[str, float]] = [
        (str(bound_ms / 1_000), histogram.at_most(bound_ms)) for bound_ms in bounds_ms
    ]
    buckets.append(("+Inf", histogram.total))
    family.add_metric(labels, buckets, sum_value=histogram.sum_ms / 1_000)


def _from_zero(known: tuple[str, ...], counts: Mapping[str, int]) -> Iterator[tuple[str, int]]:
    """The known names first, counted or not, then whatever else was counted."""
    for name in dict.fromkeys((*known, *sorted(counts))):
        yield clean(name), counts.get(name, 0)


def _oldest_age_s(sample: QueueSample) -> float:
    if sample.oldest_ready_at_ms is None:
        return 0.0
    return max(0.0, (sample.at_ms - sample.oldest_ready_at_ms) / 1_000)


def _busy_on_queue(worker: WorkerInfo) -> int:
    """Slots busy with this queue's jobs; a worker on several queues lists at most 100 of them."""
    return worker.busy if len(worker.queues) == 1 else len(worker.running)


def _state_of(worker: WorkerInfo) -> str:
    if worker.stopping:
        return "stopping"
    return "busy" if worker.busy else "idle"
