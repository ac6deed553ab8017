"""The one sampler of a process: asks Redis once a second, for however many viewers."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

from dashboard.observer.rates import (
    Mark,
    append,
    keep_marks,
    minute_of,
    point_of,
    rates_of,
)
from dashboard.observer.snapshot import QueueFigures, QueueSeries, Rates, Snapshot, event_name
from tickbird.errors import TickbirdError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from dashboard.alerts.rules import Alert
    from tickbird.clock import Clock
    from tickbird.inspector import QueueSample, ServerInfo
    from tickbird.job import QueueRef

log = logging.getLogger(__name__)

SECONDS_KEPT = 600
MINUTES_KEPT = 60
SERVER_EVERY = 5
"""The server's own figures (memory, policy) are asked for in every fifth sample."""
SAMPLE_TIMEOUT_S = 8.0


class Source(Protocol):
    """What the sampler reads from: tickbird's Inspector."""

    async def discover(self) -> list[QueueRef]:
        """All queues there are."""

    async def sample(self, queues: Sequence[QueueRef]) -> list[QueueSample]:
        """Their figures now."""

    async def server(self) -> ServerInfo:
        """The figures of the server."""


class Judge(Protocol):
    """What turns figures into alerts: the alert engine."""

    def evaluate(self, figures: Sequence[QueueFigures], now_ms: int) -> tuple[Alert, ...]:
        """The alerts that fire now, worst first."""


@dataclass(slots=True)
class _Track:
    """What is remembered of one queue between samples."""

    figures: QueueFigures | None = None
    marks: tuple[Mark, ...] = ()
    last: Mark | None = None
    moved: Mark | None = None


@dataclass(slots=True)
class Sampler:
    """Takes samples, keeps the latest `snapshot`, and tells `publish` what changed.

    A sample that fails keeps the last good figures and marks the snapshot down. A queue
    that cannot be read is marked in its own figures and keeps its history.
    """

    source: Source
    judge: Judge
    clock: Clock
    publish: Callable[[frozenset[str], int], None]
    actions: Callable[[], Mapping[tuple[str, str], int]]
    interval_s: float = 1.0
    snapshot: Snapshot = field(init=False)
    _tracks: dict[QueueRef, _Track] = field(default_factory=dict, init=False)
    _server: ServerInfo | None = field(default=None, init=False)
    _turn: int = field(default=0, init=False)
    _busy: asyncio.Lock = field(default_factory=asyncio.Lock, init=False)

    def __post_init__(self) -> None:
        self.snapshot = Snapshot(
            at_ms=0,
            taken_at_s=self.clock.monotonic_s(),
            up=False,
            error="The first sample is still being taken.",
            server=None,
            queues=(),
            alerts=(),
            sample_duration_s=0.0,
            version=self.clock.now_ms(),
        )

    def age_s(self) -> float:
        """Seconds since the last good sample (since the start, if there was none)."""
        return max(0.0, self.clock.monotonic_s() - self.snapshot.taken_at_s)

    async def run(self, closing: asyncio.Event) -> None:
        """Sample until `closing` is set."""
        while not closing.is_set():
            began_s = self.clock.monotonic_s()
            await self.run_once()
            rest_s = max(0.05, self.interval_s - (self.clock.monotonic_s() - began_s))
            with suppress(TimeoutError):
                async with asyncio.timeout(rest_s):
                    await closing.wait()

    async def run_once(self) -> Snapshot:
        """Take one sample; concurrent calls wait for each other. Never raises."""
        async with self._busy:
            began_s = self.clock.monotonic_s()
            before = self.snapshot
            try:
                async with asyncio.timeout(SAMPLE_TIMEOUT_S):
                    samples = await self._read()
            except TimeoutError:
                self._mark_down(f"Redis did not answer within {SAMPLE_TIMEOUT_S:.0f} s.")
            except TickbirdError as error:
                self._mark_down(str(error))
            except Exception:
                log.exception("sample_failed")
                self._mark_down("A sample failed; the log of the dashboard says why.")
            else:
                self._take(samples, began_s)
            self._tell(before)
            return self.snapshot

    async def refresh(self) -> Snapshot:
        """A snapshot newer than this call, for the answer to an action."""
        return await self.run_once()

    async def _read(self) -> list[QueueSample]:
        samples = await self.source.sample(await self.source.discover())
        if self._server is None or self._turn % SERVER_EVERY == 0:
            self._server = await self.source.server()
        self._turn += 1
        return samples

    def _mark_down(self, sentence: str) -> None:
        if self.snapshot.up:
            log.warning("sampling_failed reason=%s", sentence)
        self.snapshot = replace(
            self.snapshot, up=False, error=sentence, version=self.snapshot.version + 1
        )

    def _take(self, samples: Sequence[QueueSample], began_s: float) -> None:
        figures = sorted(
            (self._figures(sample) for sample in samples), key=lambda f: f.sample.queue.label
        )
        present = {sample.queue for sample in samples}
        self._tracks = {queue: track for queue, track in self._tracks.items() if queue in present}
        at_ms = max((sample.at_ms for sample in samples), default=self.clock.now_ms())
        if not self.snapshot.up and not self.snapshot.is_blank:
            log.info("sampling_works_again")
        self.snapshot = Snapshot(
            at_ms=at_ms,
            taken_at_s=self.clock.monotonic_s(),
            up=True,
            error=None,
            server=self._server,
            queues=tuple(figures),
            alerts=self.judge.evaluate(figures, at_ms),
            sample_duration_s=self.clock.monotonic_s() - began_s,
            version=self.snapshot.version + 1,
            total=self._total(figures),
            actions=self.actions(),
        )

    def _figures(self, sample: QueueSample) -> QueueFigures:
        track = self._tracks.setdefault(sample.queue, _Track())
        known = track.figures
        if sample.error is not None:
            track.figures = (
                replace(known, sample=sample)
                if known
                else QueueFigures(sample=sample, series=QueueSeries(), rates=Rates())
            )
            return track.figures
        mark = Mark.of(sample)
        step = Mark.since(track.last, mark) if track.last else None
        track.marks = keep_marks(track.marks, mark)
        track.moved = Mark.since(track.marks[0], mark)
        track.last = mark
        rates = rates_of(track.moved, sample.depth)
        series = append(
            known.series if known else QueueSeries(), point_of(sample, step, rates), SECONDS_KEPT
        )
        track.figures = QueueFigures(
            sample=sample,
            series=series,
            rates=rates,
            minutes=_with_minute(known.minutes if known else QueueSeries(), series),
        )
        return track.figures

    def _total(self, figures: Sequence[QueueFigures]) -> Rates:
        moved = [track.moved for track in self._tracks.values() if track.moved]
        longest_ms = max((mark.at_ms for mark in moved), default=0)
        depth = sum(f.sample.depth for f in figures)
        return rates_of(Mark.total(moved, longest_ms), depth)

    def _tell(self, before: Snapshot) -> None:
        names = changed(before, self.snapshot)
        if names:
            self.publish(names, self.snapshot.version)


def _with_minute(minutes: QueueSeries, seconds: QueueSeries) -> QueueSeries:
    """Add the minute that ended with the newest second, once."""
    ended_ms = seconds.at_ms[-1] // 60_000 * 60_000 - 60_000
    if minutes.at_ms and minutes.at_ms[-1] >= ended_ms:
        return minutes
    point = minute_of(seconds, ended_ms)
    return append(minutes, point, MINUTES_KEPT) if point else minutes


def changed(before: Snapshot, after: Snapshot) -> frozenset[str]:
    """Names of what a viewer should fetch again.

    `queues`, `workers`, `health`, and the event name of each queue that moved.
    """
    names: set[str] = set()
    if (before.up, before.error) != (after.up, after.error):
        names |= {"health", "queues", "workers"}
    if after.up and (before.at_ms != after.at_ms):
        old: Mapping[QueueRef, QueueFigures] = {f.sample.queue: f for f in before.queues}
        for figures in after.queues:
            earlier = old.get(figures.sample.queue)
            if earlier is None or _moved(earlier, figures):
                names |= {event_name(figures.sample.queue), "queues"}
        if len(old) != len(after.queues) or before.alerts != after.alerts:
            names.add("queues")
        if _workers(before) != _workers(after):
            names.add("workers")
    return frozenset(names)


def _moved(before: QueueFigures, after: QueueFigures) -> bool:
    old, new = before.sample, after.sample
    return (
        old.counts != new.counts
        or old.paused != new.paused
        or old.error != new.error
        or before.rates.attempts != after.rates.attempts
        or before.rates.added_per_min != after.rates.added_per_min
    )


def _workers(snapshot: Snapshot) -> set[tuple[str, int, bool, tuple[str, ...]]]:
    return {
        (w.id, w.busy, w.stopping, tuple(job.id for job in w.running))
        for figures in snapshot.queues
        for w in figures.sample.workers
    }
