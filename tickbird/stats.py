"""Exact counters and histograms of a queue: what the scripts count, as Python reads it."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field

from tickbird.job import Outcome

# Upper bounds in milliseconds, inclusive; one more bucket holds what is longer. About six per
# decade, and a superset of every bound the exporter publishes, so that its buckets are exact sums.
BOUNDS_MS = (
    1, 2, 3, 5, 7, 10, 15, 25, 35, 50, 70, 100, 150, 250, 350, 500, 700,
    1_000, 1_500, 2_500, 3_500, 5_000, 7_000, 10_000, 15_000, 20_000, 30_000, 45_000, 60_000,
    90_000, 120_000, 180_000, 300_000, 450_000, 600_000, 900_000, 1_200_000, 1_800_000,
    2_700_000, 3_600_000, 7_200_000, 10_800_000, 21_600_000,
)  # fmt: skip


def bucket_of(duration_ms: float) -> int:
    """Index of the bucket that holds a duration: the first bound not below it."""
    return bisect_left(BOUNDS_MS, duration_ms)


@dataclass(frozen=True, slots=True)
class Histogram:
    """Durations by bucket. `counts[i]` is bucket i of BOUNDS_MS; the last has no upper bound."""

    counts: tuple[int, ...] = (0,) * (len(BOUNDS_MS) + 1)
    sum_ms: int = 0

    @property
    def total(self) -> int:
        """How many durations were counted."""
        return sum(self.counts)

    def __add__(self, other: Histogram) -> Histogram:
        return Histogram(
            tuple(a + b for a, b in zip(self.counts, other.counts, strict=True)),
            self.sum_ms + other.sum_ms,
        )

    def since(self, earlier: Histogram) -> Histogram:
        """What was counted after `earlier`; zero where counters were reset in between."""
        counts = tuple(max(0, a - b) for a, b in zip(self.counts, earlier.counts, strict=True))
        return Histogram(counts, max(0, self.sum_ms - earlier.sum_ms))

    def quantile_ms(self, q: float) -> float | None:
        """The q-quantile (0..1), linear inside its bucket; None when nothing was counted.

        The error is at most the bucket's width; beyond the last bound that bound is given.
        Source: the same interpolation as Prometheus' histogram_quantile().
        """
        total = self.total
        if total == 0:
            return None
        rank, seen = q * total, 0
        for index, count in enumerate(self.counts):
            if count and seen + count >= rank:
                if index == len(BOUNDS_MS):
                    return float(BOUNDS_MS[-1])
                low = BOUNDS_MS[index - 1] if index else 0
                return low + (BOUNDS_MS[index] - low) * (rank - seen) / count
            seen += count
        return float(BOUNDS_MS[-1])

    def at_most(self, bound_ms: int) -> int:
        """How many durations were at most `bound_ms`, which must be one of BOUNDS_MS."""
        return sum(self.counts[: BOUNDS_MS.index(bound_ms) + 1])


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskStats:
    """Monotonic figures of one job name in one queue, since its counters began."""

    added: int = 0
    attempts: Mapping[Outcome, int] = field(default_factory=dict)
    run: Mapping[Outcome, Histogram] = field(default_factory=dict)
    wait: Histogram = field(default_factory=Histogram)
    dead_lettered: Mapping[str, int] = field(default_factory=dict)
    """Final failures by reason: `attempts` used up, `unrecoverable`, `stalled`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueStats:
    """Monotonic figures of one queue. Job names beyond 200 are counted under `other`."""

    tasks: Mapping[str, TaskStats] = field(default_factory=dict)
    stalled: int = 0
    replayed: Mapping[str, int] = field(default_factory=dict)
    """Replays by the state they came from: `failed`, `completed`."""
    removed: Mapping[str, int] = field(default_factory=dict)
    """Jobs removed on request by the state they were in; what retention trims is not among them."""
    vanished: int = 0
    """Ids taken or finished whose job hash was gone or unreadable."""

    @property
    def added(self) -> int:
        """Jobs added."""
        return sum(task.added for task in self.tasks.values())

    def attempts(self, *outcomes: Outcome) -> int:
        """Attempts that ended with one of these outcomes (none given: with any)."""
        wanted = outcomes or tuple(Outcome)
        return sum(t.attempts.get(o, 0) for t in self.tasks.values() for o in wanted)

    def run(self, *outcomes: Outcome) -> Histogram:
        """Processing times of attempts with one of these outcomes (none given: all)."""
        wanted = outcomes or tuple(Outcome)
        total = Histogram()
        for task in self.tasks.values():
            for outcome in wanted:
                if outcome in task.run:
                    total += task.run[outcome]
        return total

    @property
    def wait(self) -> Histogram:
        """Waiting times, ready to taken."""
        total = Histogram()
        for task in self.tasks.values():
            total += task.wait
        return total
