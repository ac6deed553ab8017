"""Failed jobs, of all queues or of one, newest first."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dashboard.queries.jobs import PAGE, job_row
from dashboard.queries.paging import pages_of
from dashboard.queries.queue import require_queue
from dashboard.views import DeadLetters, DeadQueue
from tickbird.job import JobState

if TYPE_CHECKING:
    from dashboard.observer.snapshot import QueueFigures, Snapshot
    from dashboard.queries.jobs import JobReads
    from tickbird.job import JobSummary

MERGED_QUEUES = 20
"""How many queues the list of all is merged from: those with the most dead letters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What the query string may say: a queue's label, and where to begin in its list."""

    queue: str = ""
    offset: int = 0


async def dead_letters(snapshot: Snapshot, asked: Request, reads: JobReads) -> DeadLetters:
    """The page: one queue's list in pages, or the newest 50 of all."""
    counted = [(_count(f), f) for f in snapshot.queues if _count(f) and not f.sample.error]
    counted.sort(key=lambda pair: (-pair[0], pair[1].sample.queue.label))
    if asked.queue:
        figures = require_queue(snapshot, asked.queue)
        total = _count(figures)
        jobs = await reads.page(figures.sample.queue, JobState.FAILED, asked.offset)
        pages = pages_of(asked.offset, PAGE, len(jobs), total)
    else:
        jobs = await _newest([f for _, f in counted[:MERGED_QUEUES]], reads)
        pages = pages_of(0, len(jobs), len(jobs), sum(count for count, _ in counted))
    return DeadLetters(
        total=sum(count for count, _ in counted),
        queues=tuple(
            DeadQueue(
                label=f.sample.queue.label,
                count=count,
                current=f.sample.queue.label == asked.queue,
            )
            for count, f in counted
        ),
        queue=asked.queue,
        jobs=tuple(job_row(job) for job in jobs),
        pages=pages,
    )


async def _newest(figures: list[QueueFigures], reads: JobReads) -> list[JobSummary]:
    parts = await asyncio.gather(*(reads.page(f.sample.queue, JobState.FAILED) for f in figures))
    merged = [job for part in parts for job in part]
    merged.sort(key=lambda job: job.finished_at_ms or 0, reverse=True)
    return merged[:PAGE]


def _count(figures: QueueFigures) -> int:
    return figures.sample.counts.get(JobState.FAILED, 0)
