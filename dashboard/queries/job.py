"""One job: what happens next and why, its attempts, its data."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dashboard.filters import ago, clock, cut, duration, is_time, ordinal, plural
from dashboard.observer.snapshot import event_name
from dashboard.problems import NotThere
from dashboard.queries.documents import document
from dashboard.queries.stacks import error_of, frames_of
from dashboard.views import AttemptRow, JobPage
from tickbird.job import JobState

if TYPE_CHECKING:
    from dashboard.observer.snapshot import QueueFigures, Snapshot
    from dashboard.queries.jobs import JobReads
    from dashboard.views import Document
    from tickbird.job import Job, QueueRef

SHOWN_ATTEMPTS = 20
SHOWN_LOGS = 200
FINAL = (JobState.COMPLETED, JobState.FAILED)
READY = (JobState.WAITING, JobState.PRIORITIZED)


async def job_page(snapshot: Snapshot, queue: QueueRef, job_id: str, reads: JobReads) -> JobPage:
    """The page of a job that exists."""
    job = await reads.job(queue, job_id)
    if job is None:
        raise NotThere(
            "There is no such job. It may have been removed, or completed and let go by "
            "its retention."
        )
    figures = snapshot.queue(queue.label)
    why, tone = why_of(job, figures, snapshot.at_ms)
    return JobPage(
        id=job.id,
        queue=queue.label,
        event=event_name(queue),
        name=job.name,
        state=job.state,
        badge=_badge(job),
        why=why,
        why_tone=tone,
        can_replay=job.state in FINAL,
        can_resume=bool(figures and figures.sample.paused and job.state not in FINAL),
        attempts=tuple(_attempts(job)),
        attempts_note=_attempts_note(job),
        documents=_documents(job),
        facts=tuple(_facts(job)),
        progress=job.progress or "",
        logs=job.logs[-SHOWN_LOGS:],
        is_final=job.state in FINAL,
    )


def _badge(job: Job) -> str:
    state = str(job.state).replace("_", " ")
    if job.attempts_made and job.attempts > 1:
        return f"{state}, {job.attempts_made} of {plural(job.attempts, 'attempt')}"
    return state


def why_of(  # noqa: PLR0911 - one answer per state
    job: Job, figures: QueueFigures | None, now_ms: int
) -> tuple[str, str]:
    """What will happen next and why, as a sentence, and its tone."""
    match job.state:
        case JobState.COMPLETED:
            return (
                f"Done {ago(job.finished_at_ms, now_ms)}{_took(job)}. Nothing more will happen.",
                "good",
            )
        case JobState.FAILED:
            return _why_failed(job), "bad"
        case JobState.ACTIVE:
            return _why_active(job, now_ms), ""
        case JobState.WAITING | JobState.PRIORITIZED:
            return _why_ready(figures)
        case JobState.DELAYED:
            return _why_delayed(job, figures, now_ms)
        case JobState.WAITING_CHILDREN:
            return (
                "It waits for its child jobs and becomes ready when the last of them is done.",
                "",
            )
        case _:
            return (
                "Its data exists, but it stands in no list of its queue: nothing will run it.",
                "warn",
            )


def _took(job: Job) -> str:
    took_ms = _took_ms(job)
    return "" if took_ms is None else f" after {duration(took_ms)} of work"


def _took_ms(job: Job) -> float | None:
    start, end = job.started_at_ms, job.finished_at_ms
    if start is None or end is None or end < start or not is_time(start) or not is_time(end):
        return None
    return end - start


def _why_failed(job: Job) -> str:
    if job.attempts_made >= job.attempts:
        used = (
            "its only attempt failed"
            if job.attempts == 1
            else (f"its {plural(job.attempts, 'attempt')} are used up")
        )
    else:
        used = "it was failed for good before its attempts were used up"
    return f"It will not run again by itself: {used}. Replay runs it again with all its attempts."


def _why_active(job: Job, now_ms: int) -> str:
    attempt = ordinal(max(1, job.attempts_made + 1))
    where = f" on {job.worker}" if job.worker else ""
    since = (
        f" for {duration(max(0, now_ms - job.started_at_ms) // 1_000 * 1_000)}"
        if job.started_at_ms
        else ""
    )
    left = job.attempts - job.attempts_made - 1
    then = (
        f"if it fails, {plural(left, 'attempt')} remain" + ("s" if left == 1 else "")
        if left > 0
        else "it is the last: a failure makes it a dead letter"
    )
    return f"Its {attempt} attempt runs{where}{since}; {then}."


def _why_ready(figures: QueueFigures | None) -> tuple[str, str]:
    if figures is None:
        return "It is ready to run.", ""
    sample = figures.sample
    if sample.paused:
        return "It is ready, but its queue is paused: nothing starts until it is resumed.", "warn"
    if not sample.workers and not sample.foreign_workers:
        return "It is ready, but no worker serves its queue. Start one and it runs at once.", "warn"
    busy, slots = (
        sum(w.busy for w in sample.workers),
        sum(w.concurrency for w in sample.workers),
    )
    if sample.workers and busy >= slots and not sample.foreign_workers:
        return (
            (
                f"It is ready and waits for a free slot: all {slots:,} are in use, "
                f"{plural(sample.depth, 'job')} ready in all."
            ),
            "",
        )
    return f"It is ready and will be taken next, as one of {plural(sample.depth, 'job')}.", ""


def _why_delayed(job: Job, figures: QueueFigures | None, now_ms: int) -> tuple[str, str]:
    if job.due_at_ms is None or not is_time(job.due_at_ms):
        return "It is delayed until a time nobody can read.", "warn"
    when = f"{ago(job.due_at_ms, now_ms)}, at {clock(job.due_at_ms)} UTC"
    paused = (
        " Its queue is paused, so it then waits until that is resumed."
        if figures and figures.sample.paused
        else ""
    )
    if job.due_at_ms <= now_ms:
        return f"It is due and will be moved to the ready jobs within seconds.{paused}", ""
    if job.attempts_made:
        nth = ordinal(job.attempts_made + 1)
        return (
            f"Its {nth} attempt of {job.attempts} starts {when}: it backs off after a failure.{paused}",
            "",
        )
    return f"It was added with a delay and starts {when}.{paused}", ""


def _attempts(job: Job) -> list[AttemptRow]:
    rows: list[AttemptRow] = []
    if job.state is JobState.ACTIVE:
        rows.append(
            AttemptRow(
                title=ordinal(job.attempts_made + 1),
                outcome="active",
                sentence=f"running on {job.worker}" if job.worker else "running",
                at_ms=job.started_at_ms,
                took_ms=None,
                frames=(),
                error="",
            )
        )
    newest_failed = job.attempts_made
    if job.state is JobState.COMPLETED:
        newest_failed -= 1
        rows.append(
            AttemptRow(
                title=ordinal(max(1, job.attempts_made)),
                outcome="completed",
                sentence=f"completed on {job.worker}" if job.worker else "completed",
                at_ms=job.finished_at_ms,
                took_ms=_took_ms(job),
                frames=(),
                error="",
            )
        )
    stacks = list(reversed(job.stacktraces))[:SHOWN_ATTEMPTS]
    if not stacks and job.error and job.state is not JobState.COMPLETED:
        stacks = [job.error]
    for index, stack in enumerate(stacks):
        newest = index == 0 and job.state is JobState.FAILED
        rows.append(
            AttemptRow(
                title=ordinal(max(1, newest_failed - index)),
                outcome="failed",
                sentence="failed" + (f" on {job.worker}" if newest and job.worker else ""),
                at_ms=job.finished_at_ms if newest else None,
                took_ms=_took_ms(job) if newest else None,
                frames=frames_of(stack),
                error=cut(_error(stack, job.error if newest else None), 300),
            )
        )
    rows.append(
        AttemptRow(
            title="Added",
            outcome="added",
            sentence=f"with a delay of {duration(job.delay_ms)}"
            if job.delay_ms and not job.attempts_made
            else "",
            at_ms=job.added_at_ms,
            took_ms=None,
            frames=(),
            error="",
        )
    )
    return rows


def _error(stack: str, stored: str | None) -> str:
    """The stack's own sentence, which names the type, unless the stored one says another thing."""
    own = error_of(stack)
    return own if not stored or stored in own else stored


def _attempts_note(job: Job) -> str:
    if not job.stacktraces:
        return "newest first"
    left_out = len(job.stacktraces) - SHOWN_ATTEMPTS
    return f"newest first; {left_out} older are left out" if left_out > 0 else "newest first"


def _documents(job: Job) -> tuple[Document, ...]:
    parts = [document("Data", job.data)]
    if job.result is not None or job.state is JobState.COMPLETED:
        parts.append(document("Result", job.result))
    parts.append(document("Options", job.options))
    return tuple(parts)


def _facts(job: Job) -> list[tuple[str, str, int | None]]:
    interrupted = job.attempts_started - job.attempts_made - (job.state is JobState.ACTIVE)
    facts: list[tuple[str, str, int | None]] = [
        ("added", "", job.added_at_ms),
        ("due", "", job.due_at_ms if job.state is JobState.DELAYED else None),
        ("last started", "", job.started_at_ms),
        ("finished", "", job.finished_at_ms),
        ("attempts", f"{job.attempts_made} of {job.attempts}", None),
        ("interrupted", f"{interrupted:,}" if interrupted > 0 else "", None),
        ("stalled", plural(job.stalls, "time") if job.stalls else "", None),
        ("priority", f"{job.priority:,}" if job.priority else "none", None),
        ("replayed", plural(job.replays, "time") if job.replays else "never", None),
        ("worker", job.worker, None),
        ("will fail with", job.deferred_failure or "", None),
    ]
    return [fact for fact in facts if fact[1] or fact[2] is not None]
