"""Who works, on what, and where nobody does."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from dashboard.charts import bar
from dashboard.queries.worries import is_unserved
from dashboard.views import RunningRow, WorkerRow, WorkersPage

if TYPE_CHECKING:
    from dashboard.observer.snapshot import Snapshot
    from tickbird.inspector import WorkerInfo


def worker_row(worker: WorkerInfo, queue: str) -> WorkerRow:
    """A worker with what it runs on one queue."""
    return WorkerRow(
        id=worker.id,
        host=worker.host,
        pid=worker.pid,
        version=worker.version,
        started_at_ms=worker.started_at_ms,
        seen_at_ms=worker.seen_at_ms,
        queues=worker.queues,
        busy=worker.busy,
        concurrency=worker.concurrency,
        bar=bar({"used": worker.busy, "free": max(0, worker.concurrency - worker.busy)}),
        stopping=worker.stopping,
        running=tuple(
            RunningRow(id=job.id, queue=queue, name=job.name, started_at_ms=job.started_at_ms)
            for job in worker.running
        ),
    )


def workers_page(snapshot: Snapshot) -> WorkersPage:
    """All workers once, each with what it runs on all its queues, busiest first."""
    found: dict[str, WorkerRow] = {}
    for figures in snapshot.queues:
        for worker in figures.sample.workers:
            row = worker_row(worker, figures.sample.queue.label)
            known = found.get(worker.id)
            found[worker.id] = (
                replace(known, running=(*known.running, *row.running)) if known else row
            )
    rows = sorted(found.values(), key=lambda row: (row.host, row.pid, row.id))
    return WorkersPage(
        workers=tuple(rows),
        busy=sum(row.busy for row in rows),
        concurrency=sum(row.concurrency for row in rows),
        foreign=tuple(
            (f.sample.queue.label, f.sample.foreign_workers)
            for f in snapshot.queues
            if f.sample.foreign_workers
        ),
        unserved=tuple(f.sample.queue.label for f in snapshot.queues if is_unserved(f)),
    )
