"""Keeps the state of every rule for every queue, and logs what fires and resolves.

The sampler calls it once per sample; it does no I/O beyond the log.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from dashboard.alerts.rules import (
    QUIET,
    Alert,
    DeadLettersExpiring,
    DepthRising,
    FailureRate,
    Rule,
    Severity,
    State,
    evaluate,
    in_words,
    printable,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dashboard.alerts.rules import Figures
    from dashboard.settings import Settings
    from tickbird import QueueRef

logger = logging.getLogger("dashboard.alerts")

_WORST_FIRST = {severity: rank for rank, severity in enumerate(reversed(Severity))}


class AlertEngine:
    """The rules the settings ask for, applied to sample after sample.

    States live in memory: after a restart an alert that still holds fires, and is
    logged, anew.
    """

    def __init__(self, settings: Settings) -> None:
        self._rules: tuple[Rule, ...] = (
            DepthRising(window_s=settings.alert_window_s),
            FailureRate(
                threshold=settings.alert_failure_rate, min_attempts=settings.alert_min_attempts
            ),
            DeadLettersExpiring(),
        )
        self._states: dict[tuple[str, QueueRef], State] = {}

    def evaluate(self, figures: Sequence[Figures], now_ms: int) -> tuple[Alert, ...]:
        """What fires now, worst and then oldest first; `now_ms` is the sample's server time.

        Each transition is logged once. A queue that is not among `figures` is gone: its
        states are dropped and its alerts resolve.
        """
        before = dict(self._states)
        after: dict[tuple[str, QueueRef], State] = {}
        for of_queue in figures:
            for rule in self._rules:
                key = rule.name, of_queue.sample.queue
                old = before.pop(key, QUIET)
                new, _ = evaluate(rule, of_queue, old, now_ms)
                _log_transition(old.alert, new.alert, now_ms)
                if new != QUIET:
                    after[key] = new
        for gone in before.values():
            _log_transition(gone.alert, None, now_ms)
        self._states = after
        return tuple(
            sorted(
                (state.alert for state in after.values() if state.alert is not None),
                key=lambda a: (_WORST_FIRST[a.severity], a.since_ms, a.queue.label, a.rule),
            )
        )


def _log_transition(old: Alert | None, new: Alert | None, now_ms: int) -> None:
    if new is None:
        if old is not None:
            logger.info(
                "alert resolved rule=%s queue=%s after %s",
                old.rule,
                printable(old.queue.label),
                in_words((now_ms - old.since_ms) / 1_000),
            )
    elif old is None or old.severity is not new.severity:
        logger.log(
            logging.ERROR if new.severity is Severity.CRITICAL else logging.WARNING,
            "alert firing rule=%s queue=%s severity=%s: %s",
            new.rule,
            printable(new.queue.label),
            new.severity,
            new.summary,
        )
