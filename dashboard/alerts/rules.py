"""The alert rules: what one queue's figures mean, given what they meant before. Pure.

Called by engine.py after each sample, with the observer's figures; what a rule reads of them
stands here, so that a rule can as well be run over other series.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, ClassVar, Protocol

from dashboard.alerts.trend import FLOOR, FLOOR_SHARE, Trend, rising, time_to_drain_s
from tickbird import KEEP_FAILED, InvalidOption, JobState, Keep

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tickbird import QueueRef, QueueSample


class Severity(StrEnum):
    """How soon somebody should look, mildest first."""

    WARNING = "warning"
    CRITICAL = "critical"


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """One rule firing for one queue. `since_ms`: when it began to fire, server clock.

    `summary` is a sentence for a person who was just woken; `forecast` another, or "".
    Neither holds control characters, whatever the queue's name is.
    """

    rule: str
    queue: QueueRef
    severity: Severity
    since_ms: int
    summary: str
    forecast: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What a rule remembers of one queue from one sample to the next.

    `began_at_ms` and `began_value` say where the trouble started, which is before the
    alert fired; `calm_since_ms` is set while a firing alert's condition does not hold.
    """

    alert: Alert | None = None
    began_at_ms: int = 0
    began_value: float = 0.0
    calm_since_ms: int | None = None


QUIET = State()

# Ten parts want ten samples, one a second; the observer keeps an hour of minutes.
MIN_WINDOW_S = 10
MAX_WINDOW_S = 3_600


class Series(Protocol):
    """A queue's depth over time: epoch milliseconds and jobs, equally many, oldest first."""

    @property
    def at_ms(self) -> Sequence[int]:
        """Epoch milliseconds of the server's clock."""

    @property
    def depth(self) -> Sequence[int]:
        """Jobs that could run at that time."""


class Rates(Protocol):
    """What happened in the last `window_s` seconds, a minute where there is that much."""

    @property
    def window_s(self) -> float:
        """How far back these figures reach, in seconds."""

    @property
    def finished_per_min(self) -> float:
        """Jobs that ended for good, per minute."""

    @property
    def failed_per_min(self) -> float:
        """Jobs that became dead letters, per minute."""

    @property
    def attempts(self) -> int:
        """Attempts that ended in the window."""

    @property
    def failed_attempts(self) -> int:
        """Those of them that failed, retried ones included."""

    @property
    def failure_rate(self) -> float | None:
        """The latter by the former; None when nothing was attempted."""


class Figures(Protocol):
    """What a rule reads about one queue now."""

    @property
    def sample(self) -> QueueSample:
        """The newest sample."""

    @property
    def series(self) -> Series:
        """The last ten minutes, by the second."""

    @property
    def minutes(self) -> Series:
        """The last hour, by the minute."""

    @property
    def rates(self) -> Rates:
        """The last minute's rates."""


class Rule(Protocol):
    """One condition on one queue; `name` is its label on the page, in the log and in /metrics."""

    name: ClassVar[str]

    def begins(self, figures: Figures) -> State | None:
        """Where the trouble began, if the condition holds; None if it does not."""

    def resolves_after_s(self, figures: Figures, state: State) -> float | None:
        """None while a firing alert is warranted; else for how long that must stay so.

        Laxer than `begins`, so that a series on the edge does not flap; 0 when the trouble
        is plainly over.
        """

    def severity(self, figures: Figures) -> Severity:
        """How bad it is now."""

    def describe(self, figures: Figures, state: State) -> tuple[str, str]:
        """The summary and the forecast of a firing alert."""


def evaluate(rule: Rule, figures: Figures, state: State, now_ms: int) -> tuple[State, Alert | None]:
    """The rule's next state for a queue, and the alert that fires now, if one does.

    An alert fires as soon as its condition holds and resolves when the rule says that the
    calm has lasted; its severity never falls while it fires. A queue that could not be
    read is no evidence of anything: state and alert stay as they were.
    """
    if figures.sample.error is not None:
        return state, state.alert
    since_ms = now_ms
    if state.alert is None:
        begun = rule.begins(figures)
        if begun is None:
            return QUIET, None
        state = begun
    else:
        since_ms = state.alert.since_ms
        calm_s = rule.resolves_after_s(figures, state)
        # min: calm that began in the future (the clock ran backwards) begins now.
        calm_since_ms = None if calm_s is None else min(now_ms, state.calm_since_ms or now_ms)
        if calm_s is not None and now_ms - (calm_since_ms or now_ms) >= calm_s * 1_000:
            return QUIET, None
        state = replace(state, calm_since_ms=calm_since_ms)
    summary, forecast = rule.describe(figures, state)
    was_critical = state.alert is not None and state.alert.severity is Severity.CRITICAL
    alert = Alert(
        rule=rule.name,
        queue=figures.sample.queue,
        severity=Severity.CRITICAL if was_critical else rule.severity(figures),
        since_ms=since_ms,
        summary=summary,
        forecast=forecast,
    )
    return replace(state, alert=alert), alert


@dataclass(frozen=True, slots=True, kw_only=True)
class DepthRising:
    """Depth trends up over `window_s` seconds, as `trend.rising` defines it, and keeps on.

    It begins only when the rise spans the window (`is_sustained`), so that a burst that is
    draining already wakes nobody.
    While it fires, half the noise floor is enough to keep it firing. It resolves after a
    fifth of the window without a trend, or at once when depth is back where the rise began.
    Critical: nothing works on the queue, though nobody paused it.
    """

    name: ClassVar[str] = "depth_rising"

    window_s: float = 600.0

    def __post_init__(self) -> None:
        if not MIN_WINDOW_S <= self.window_s <= MAX_WINDOW_S:
            raise InvalidOption(
                f"the window of the alert on a rising depth must be between {MIN_WINDOW_S} seconds "
                f"and {MAX_WINDOW_S // 60} minutes, not {self.window_s:g} s"
            )

    def begins(self, figures: Figures) -> State | None:
        """See Rule."""
        trend = self._trend(figures)
        if not (trend.is_rising and trend.is_sustained):
            return None
        return State(began_at_ms=trend.first_at_ms, began_value=trend.first)

    def resolves_after_s(self, figures: Figures, state: State) -> float | None:
        """See Rule."""
        if figures.sample.depth <= state.began_value:
            return 0.0
        return None if self._trend(figures, ease=0.5).is_rising else self.window_s / 5

    def severity(self, figures: Figures) -> Severity:
        """See Rule."""
        is_dead = _nothing_works_on(figures) and not figures.sample.paused
        return Severity.CRITICAL if is_dead else Severity.WARNING

    def describe(self, figures: Figures, state: State) -> tuple[str, str]:
        """See Rule."""
        queue, depth = printable(figures.sample.queue.label), figures.sample.depth
        lasted = in_words((figures.sample.at_ms - state.began_at_ms) / 1_000)
        span = f"{state.began_value:,.0f} -> {depth:,} waiting"
        trend = self._trend(figures)
        forecast = forecast_in_words(trend, self.window_s)
        if state.calm_since_ms is not None:
            return f"{queue} has risen within {lasted}: {span}; it rises no longer", forecast
        if figures.sample.paused:
            cause = "it is paused"
        elif not figures.sample.workers and not figures.sample.foreign_workers:
            cause = "no worker serves it"
        elif _nothing_works_on(figures):
            cause = "its workers finish nothing"
        else:
            cause = "it will not drain at this rate"
        return f"{queue} has been rising for {lasted}: {span}; {cause}", forecast

    def _trend(self, figures: Figures, *, ease: float = 1.0) -> Trend:
        series = _covering(figures, self.window_s)
        if not series.depth or series.depth[-1] < FLOOR * ease:
            return Trend(last=float(figures.sample.depth))  # too small to have risen by the floor
        return rising(
            list(zip(series.at_ms, series.depth, strict=True)),
            window_s=self.window_s,
            floor=FLOOR * ease,
            floor_share=FLOOR_SHARE * ease,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureRate:
    """More than `threshold` (0-1) of the last minute's attempts failed, retried ones included.

    Fewer than `min_attempts` attempts are no sample. While it fires, half of them and four
    fifths of the threshold are enough to keep it firing; it resolves after a minute below.
    Critical: at least half of all attempts fail.
    """

    name: ClassVar[str] = "failure_rate"

    threshold: float = 0.1
    min_attempts: int = 20

    def __post_init__(self) -> None:
        if not 0 <= self.threshold < 1:
            raise InvalidOption(
                f"the failure rate to alert on must be 0 or more and below 1, not {self.threshold}"
            )

    def begins(self, figures: Figures) -> State | None:
        """See Rule."""
        if not self._is_over(figures, ease=1.0):
            return None
        return State(
            began_at_ms=figures.sample.at_ms - round(figures.rates.window_s * 1_000),
            began_value=_failure_rate(figures),
        )

    def resolves_after_s(self, figures: Figures, state: State) -> float | None:  # noqa: ARG002 - today's rate alone decides
        """See Rule."""
        return None if self._is_over(figures, ease=0.8) else 60.0

    def severity(self, figures: Figures) -> Severity:
        """See Rule."""
        return Severity.CRITICAL if _failure_rate(figures) >= 0.5 else Severity.WARNING  # noqa: PLR2004 - the docstring names it

    def describe(self, figures: Figures, state: State) -> tuple[str, str]:
        """See Rule."""
        queue, rates = printable(figures.sample.queue.label), figures.rates
        lasted = in_words((figures.sample.at_ms - state.began_at_ms) / 1_000)
        if state.calm_since_ms is not None:
            return f"{queue} has failed within {lasted}, and is below the limit now", ""
        dead = round(rates.failed_per_min * rates.window_s / 60)
        letters = "no dead letters" if dead == 0 else f"{_count(dead, 'new dead letter')}"
        return (
            f"{queue} has been failing for {lasted}: {rates.failed_attempts:,} of "
            f"{_count(rates.attempts, 'attempt')} ({_failure_rate(figures):.0%}, limit "
            f"{self.threshold:.0%}) failed within {in_words(rates.window_s)}; {letters}"
        ), ""

    def _is_over(self, figures: Figures, *, ease: float) -> bool:
        fewest = self.min_attempts if ease == 1.0 else self.min_attempts / 2
        return (
            figures.rates.attempts >= max(1, fewest)
            and _failure_rate(figures) > self.threshold * ease
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLettersExpiring:
    """Retention is about to remove dead letters: `share` of their number or age is used up.

    Goes by the default retention (14 days, a million), which leaves queues alone that BullMQ's
    clients share. Critical: removal has begun.
    """

    name: ClassVar[str] = "dead_letters_expiring"

    keep: Keep = KEEP_FAILED
    share: float = 0.9

    def begins(self, figures: Figures) -> State | None:
        """See Rule."""
        used = self._used(figures)
        return State(began_at_ms=figures.sample.at_ms, began_value=used) if used else None

    def resolves_after_s(self, figures: Figures, state: State) -> float | None:  # noqa: ARG002 - what is kept now alone decides
        """See Rule."""
        return None if self._used(figures) else 0.0

    def severity(self, figures: Figures) -> Severity:
        """See Rule."""
        return Severity.CRITICAL if self._used(figures) >= 1 else Severity.WARNING

    def describe(self, figures: Figures, state: State) -> tuple[str, str]:  # noqa: ARG002 - as above
        """See Rule."""
        queue, sample = printable(figures.sample.queue.label), figures.sample
        oldest = in_words(self._age_s(figures))
        return (
            f"{queue} has {_count(sample.counts[JobState.FAILED], 'dead letter')}, the oldest for "
            f"{oldest}; retention removes them after {in_words(self.keep.age_s)} or beyond "
            f"{self.keep.count or 0:,}: replay or save what you need"
        ), ""

    def _used(self, figures: Figures) -> float:
        """The share of what retention allows, once it passes `share`; else 0."""
        if figures.sample.is_shared:
            return 0.0
        by_count = figures.sample.counts[JobState.FAILED] / (self.keep.count or math.inf)
        by_age = self._age_s(figures) / (self.keep.age_s or math.inf)
        used = max(by_count, by_age)
        return used if used >= self.share else 0.0

    def _age_s(self, figures: Figures) -> float:
        oldest_ms = figures.sample.oldest_failed_at_ms
        return 0.0 if oldest_ms is None else (figures.sample.at_ms - oldest_ms) / 1_000


RULES: tuple[type[Rule], ...] = (DepthRising, FailureRate, DeadLettersExpiring)
"""Every rule there is; /metrics shows each, firing or not."""


def forecast_in_words(trend: Trend, window_s: float) -> str:
    """What becomes of a depth at its present slope, as a sentence; "" if it does not move."""
    drain = time_to_drain_s(trend)
    if drain is None:
        if trend.rise < 1:
            return ""
        return (
            f"At +{trend.slope_per_s * 60:,.0f} a minute "
            f"{trend.last + trend.rise:,.0f} will wait in {in_words(window_s)}."
        )
    earliest, likely, latest = drain
    if likely == 0:
        return "It is empty."
    bound = "or never" if latest is None else f"to {in_words(latest)}"
    return f"It drains in about {in_words(likely)} ({in_words(earliest)} {bound})."


def in_words(duration_s: float) -> str:
    """A duration in its one largest fitting unit: "45 seconds", "12 minutes", "3 hours"."""
    duration_s = max(0.0, duration_s)
    for unit, unit_s in (("day", 86_400), ("hour", 3_600), ("minute", 60)):
        if duration_s >= unit_s * (2 if unit != "minute" else 1):
            return _count(round(duration_s / unit_s), unit)
    return _count(round(duration_s), "second")


def printable(text: str) -> str:
    r"""A name for a log line or a sentence: what cannot be printed becomes \xNN or \uNNNN."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii")
        for char in text
    )


def _covering(figures: Figures, window_s: float) -> Series:
    """The finest series that reaches back over the window's ten parts."""
    at_ms = figures.series.at_ms
    if at_ms and at_ms[-1] - at_ms[0] >= 0.9 * window_s * 1_000:
        return figures.series
    return figures.minutes


def _nothing_works_on(figures: Figures) -> bool:
    sample = figures.sample
    is_served = bool(sample.workers) or sample.foreign_workers > 0
    return figures.rates.finished_per_min == 0 and not (
        is_served and sample.counts[JobState.ACTIVE]
    )


def _failure_rate(figures: Figures) -> float:
    return figures.rates.failure_rate or 0.0


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
