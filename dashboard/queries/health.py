"""How fresh the figures are, and how many things the navigation counts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dashboard.problems import NoFigures
from dashboard.views import Health
from tickbird.job import JobState

if TYPE_CHECKING:
    from dashboard.observer.snapshot import Snapshot


def health_of(snapshot: Snapshot, age_s: float) -> Health:
    """What the header says."""
    workers = {w.id for f in snapshot.queues for w in f.sample.workers}
    return Health(
        up=snapshot.up,
        sentence=snapshot.error or "",
        age_ms=age_s * 1_000,
        now_ms=snapshot.at_ms,
        dead_letters=sum(f.sample.counts.get(JobState.FAILED, 0) for f in snapshot.queues),
        alerts=len(snapshot.alerts),
        workers=len(workers),
        queues=len(snapshot.queues),
    )


def require_figures(snapshot: Snapshot) -> Snapshot:
    """The snapshot, if there ever was a good sample; else the sentence why not."""
    if snapshot.is_blank:
        raise NoFigures(snapshot.error or "There are no figures yet.")
    return snapshot
