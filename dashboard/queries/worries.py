"""What needs somebody: alerts, unreadable queues, queues nobody serves, an unsafe server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dashboard.filters import duration, plural, visible
from dashboard.views import Worry

if TYPE_CHECKING:
    from dashboard.observer.snapshot import QueueFigures, Snapshot

UNSERVED_AFTER_MS = 10_000
"""A worker that restarts is no worry; one that stays away is."""


def worries_of(snapshot: Snapshot) -> tuple[Worry, ...]:
    """Everything that needs somebody now, worst first."""
    found = [*_alerts(snapshot), *_unreadable(snapshot), *_unserved(snapshot), *_server(snapshot)]
    return tuple(sorted(found, key=lambda worry: worry.severity != "critical"))


def _alerts(snapshot: Snapshot) -> list[Worry]:
    worries = []
    for alert in snapshot.alerts:
        label = alert.queue.label
        named = alert.summary.startswith(label)
        worries.append(
            Worry(
                severity=str(alert.severity),
                queue=label if named else "",
                sentence=(alert.summary[len(label) :].strip() if named else alert.summary) + ".",
                forecast=alert.forecast,
            )
        )
    return worries


def _unreadable(snapshot: Snapshot) -> list[Worry]:
    return [
        Worry(
            severity="critical",
            queue=figures.sample.queue.label,
            sentence=f"cannot be read: {figures.sample.error}",
        )
        for figures in snapshot.queues
        if figures.sample.error
    ]


def _unserved(snapshot: Snapshot) -> list[Worry]:
    alerted = {alert.queue for alert in snapshot.alerts}
    return [
        Worry(
            severity="warning",
            queue=figures.sample.queue.label,
            sentence=(
                f"has {plural(figures.sample.depth, 'job')} ready and no worker: the oldest "
                f"waits for {duration(waited_ms(figures))}."
            ),
        )
        for figures in snapshot.queues
        if is_unserved(figures) and figures.sample.queue not in alerted
    ]


def is_unserved(figures: QueueFigures) -> bool:
    """Whether jobs have been ready for a while and nobody is there to take them."""
    sample = figures.sample
    return (
        sample.depth > 0
        and not sample.paused
        and not sample.workers
        and not sample.foreign_workers
        and (waited_ms(figures) or 0) > UNSERVED_AFTER_MS
    )


def waited_ms(figures: QueueFigures) -> float | None:
    """How long the oldest ready job has waited; None when none does."""
    since_ms = figures.sample.oldest_ready_at_ms
    return None if since_ms is None else max(0, figures.sample.at_ms - since_ms)


def _server(snapshot: Snapshot) -> list[Worry]:
    server = snapshot.server
    if server is None:
        return []
    worries = []
    if server.memory_policy not in ("noeviction", ""):
        worries.append(
            Worry(
                severity="critical",
                queue="",
                sentence=(
                    f"Redis evicts keys when it is full ({visible(server.memory_policy)}): jobs "
                    "can vanish. Set maxmemory-policy to noeviction."
                ),
            )
        )
    if server.role not in ("master", "primary", ""):
        worries.append(
            Worry(
                severity="warning",
                queue="",
                sentence="This Redis is a read-only replica: actions will be refused.",
            )
        )
    return worries
