"""One job: `/jobs/{label}/{job_id}`, and its replay."""

from __future__ import annotations

from typing import Any

from litestar import Request, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath
from litestar.response import Redirect, Template

from dashboard.assets import from_segment
from dashboard.auth.origin import same_origin
from dashboard.pages.rendering import Services, actor_of, is_htmx, render, see_other
from dashboard.problems import NotThere, Refused
from dashboard.queries.job import FINAL, job_page
from tickbird.job import QueueRef


@get("/jobs/{label:str}/{job_id:str}", name="job")
async def job(
    request: Request[Any, Any, Any],
    services: NamedDependency[Services],
    label: FromPath[str],
    job_id: FromPath[str],
) -> Template:
    """What a job is, was and will be."""
    return await job_answer(request, services, from_segment(label), from_segment(job_id))


@post(
    "/jobs/{label:str}/{job_id:str}/replay",
    name="replay_job",
    guards=[same_origin],
    status_code=200,
)
async def replay_job(
    request: Request[Any, Any, Any],
    services: NamedDependency[Services],
    label: FromPath[str],
    job_id: FromPath[str],
) -> Template | Redirect:
    """Put a failed or completed job back into its queue."""
    queue, job_id = QueueRef.from_label(from_segment(label)), from_segment(job_id)
    services.reads.forget()
    found = await services.reads.job(queue, job_id)
    if found is None:
        raise NotThere("There is no such job; it may have been removed.")
    if found.state not in FINAL:
        raise Refused(
            f"The job is {str(found.state).replace('_', ' ')} now, so there is nothing to replay; "
            "somebody may have replayed it already.",
            status=409,
        )
    done = await services.actions.replay(
        queue, [job_id], actor_of(request, services), state=found.state
    )
    await services.refreshed()
    if not is_htmx(request):
        said = f"said=replayed&done={done.done}&asked={done.asked}"
        return see_other(request, "job", said, label=queue.label, job_id=job_id)
    return await job_answer(request, services, queue.label, job_id, notice=done.sentence)


async def job_answer(
    request: Request[Any, Any, Any],
    services: Services,
    label: str,
    job_id: str,
    *,
    notice: str = "",
) -> Template:
    """The page; also the answer to actions on it."""
    queue = QueueRef.from_label(label)
    snapshot = services.figures()
    view = await job_page(snapshot, queue, job_id, services.reads)
    return render(request, services, snapshot, "job", notice=notice, view=view)
