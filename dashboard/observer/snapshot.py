"""What one sample says about every queue; the only thing pages, alerts and /metrics read.

Times are epoch milliseconds of the Redis server unless a name says otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import blake2b
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dashboard.alerts.rules import Alert
    from tickbird.inspector import QueueSample, ServerInfo
    from tickbird.job import QueueRef


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """How a queue has moved over the last 60 s, or since the first sample if that is less.

    `finished` counts jobs that ended for good (completed or failed), `failed` only the
    latter; `failed_attempts` counts retried attempts too. `drain_s` is the time to empty at
    the current net rate: 0 when empty, None when it never will at this rate.
    """

    window_s: float = 0.0
    added_per_min: float = 0.0
    finished_per_min: float = 0.0
    failed_per_min: float = 0.0
    retried_per_min: float = 0.0
    attempts: int = 0
    failed_attempts: int = 0
    failure_rate: float | None = None
    """failed_attempts / attempts; None when nothing was attempted."""
    run_p50_ms: float | None = None
    run_p95_ms: float | None = None
    wait_p95_ms: float | None = None
    drain_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueSeries:
    """One queue over time, newest last, all tuples of one length.

    Points are equally spaced but where a sample failed: those are missing, never zero.
    `finished` and `failed` are per second within the point; `run_p95_ms` and `failure_rate`
    look back 60 s from it and are None where nothing ran.
    """

    at_ms: tuple[int, ...] = ()
    depth: tuple[int, ...] = ()
    failed_jobs: tuple[int, ...] = ()
    """Dead letters: jobs in `failed` at that time."""
    finished: tuple[float, ...] = ()
    failed: tuple[float, ...] = ()
    run_p95_ms: tuple[float | None, ...] = ()
    failure_rate: tuple[float | None, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueFigures:
    """What pages and alerts read about one queue now."""

    sample: QueueSample
    series: QueueSeries
    """One point per second, at most 600."""
    rates: Rates
    minutes: QueueSeries = field(default_factory=QueueSeries)
    """One point per minute, at most 60."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """One sample of everything.

    When Redis did not answer, `up` is False, `error` is the sentence why, and the rest is
    what the last good sample said (empty if there never was one): `at_ms` and `taken_at_s`
    (monotonic, for the age) stay those of that sample.
    """

    at_ms: int
    taken_at_s: float
    up: bool
    error: str | None
    server: ServerInfo | None
    queues: tuple[QueueFigures, ...]
    """Sorted by label."""
    alerts: tuple[Alert, ...]
    """Firing now, worst first."""
    sample_duration_s: float
    version: int = 0
    """Grows with every sample and never goes back, not even when the process restarts."""
    total: Rates = field(default_factory=Rates)
    """Over all queues."""
    actions: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """How often each (action, result) was asked for since this process started."""

    @property
    def is_blank(self) -> bool:
        """Whether there never was a good sample, so that there is nothing to show."""
        return self.at_ms == 0

    def queue(self, label: str) -> QueueFigures | None:
        """The figures of one queue by its label."""
        for figures in self.queues:
            if figures.sample.queue.label == label:
                return figures
        return None


def event_name(queue: QueueRef) -> str:
    """The name under which browsers hear that a queue moved.

    A hash: a queue's own name may hold what no event name and no header line can.
    """
    label = queue.label.encode(errors="surrogateescape")
    return f"queue-{blake2b(label, digest_size=6).hexdigest()}"
