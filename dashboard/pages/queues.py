"""One queue: `/queues/{label}`, its charts, pause and resume."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from litestar import Request, Response, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath
from litestar.response import Redirect, Template

from dashboard.assets import from_segment
from dashboard.auth.origin import same_origin
from dashboard.charts import CHARTS, figure
from dashboard.pages.jobs import job_answer
from dashboard.pages.overview import overview_answer
from dashboard.pages.rendering import Services, actor_of, is_htmx, render, see_other
from dashboard.problems import BadInput, NotThere
from dashboard.queries import queue as query
from dashboard.queries.paging import parse_offset
from tickbird.job import JobState

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dashboard.actions.journal import Done


@get("/queues/{label:str}", name="queue")
async def queue(
    request: Request[Any, Any, Any], services: NamedDependency[Services], label: FromPath[str]
) -> Template:
    """A queue's figures and one of its lists."""
    return await queue_answer(request, services, from_segment(label))


@get("/queues/{label:str}/charts/{kind:str}", name="chart", sync_to_thread=False)
def chart(
    services: NamedDependency[Services], label: FromPath[str], kind: FromPath[str]
) -> Response[bytes]:
    """A chart's figure as JSON."""
    if kind not in CHARTS:
        raise NotThere(f"There is no such chart; there are: {', '.join(CHARTS)}.")
    figures = query.require_queue(services.figures(), from_segment(label))
    body = figure(CHARTS[kind], *query.chart_columns(figures, CHARTS[kind]))
    return Response(body, media_type="application/json")


@post("/queues/{label:str}/pause", name="pause", guards=[same_origin], status_code=200)
async def pause(
    request: Request[Any, Any, Any], services: NamedDependency[Services], label: FromPath[str]
) -> Template | Redirect:
    """Stop starting jobs."""
    figures = query.require_queue(services.figures(), from_segment(label))
    done = await services.actions.pause(figures.sample.queue, actor_of(request, services))
    return await _answer(request, services, figures.sample.queue.label, done, "paused")


@post("/queues/{label:str}/resume", name="resume", guards=[same_origin], status_code=200)
async def resume(
    request: Request[Any, Any, Any], services: NamedDependency[Services], label: FromPath[str]
) -> Template | Redirect:
    """Start jobs again."""
    figures = query.require_queue(services.figures(), from_segment(label))
    done = await services.actions.resume(figures.sample.queue, actor_of(request, services))
    return await _answer(request, services, figures.sample.queue.label, done, "resumed")


async def _answer(
    request: Request[Any, Any, Any], services: Services, label: str, done: Done, said: str
) -> Template | Redirect:
    """The page the button was on, changed. `from` in the query string says which."""
    await services.refreshed()
    origin = request.query_params.get("from", "queue")
    job_id = from_segment(request.query_params.get("job", ""))
    if not is_htmx(request):
        match origin:
            case "overview":
                return see_other(request, "overview", f"said={said}")
            case "job":
                return see_other(request, "job", f"said={said}", label=label, job_id=job_id)
            case _:
                return see_other(request, "queue", f"said={said}", label=label)
    match origin:
        case "overview":
            return overview_answer(request, services, notice=done.sentence)
        case "job":
            return await job_answer(request, services, label, job_id, notice=done.sentence)
        case _:
            return await queue_answer(request, services, label, notice=done.sentence)


async def queue_answer(
    request: Request[Any, Any, Any], services: Services, label: str, *, notice: str = ""
) -> Template:
    """The page as the query string asks for it; also the answer to actions on it."""
    asked = asked_of(request.query_params)
    snapshot = services.figures()
    view = await query.queue_page(snapshot, label, asked, services.reads)
    figures = query.require_queue(snapshot, label)
    return render(
        request,
        services,
        snapshot,
        "queue",
        notice=notice,
        view=view,
        asked=asked,
        charts=[(chart, query.chart_rows(figures, chart)) for chart in CHARTS.values()],
    )


def asked_of(params: Mapping[str, str]) -> query.Request:
    """The query string as a request; BadInput names what is wrong."""
    state = params.get("state")
    if state and state not in {str(tab) for tab in query.TABS}:
        raise BadInput(f"state must be one of: {', '.join(query.TABS)}.")
    return query.Request(
        state=JobState(state) if state else None, offset=parse_offset(params.get("offset"))
    )
