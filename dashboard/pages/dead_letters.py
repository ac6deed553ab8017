"""Dead letters of all queues: `/dead-letters`, and the replay of those shown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from litestar import Request, get, post
from litestar.di import NamedDependency
from litestar.response import Redirect, Template

from dashboard.actions.queues import MAX_REPLAYS
from dashboard.assets import from_segment, to_segment
from dashboard.auth.origin import same_origin
from dashboard.pages.rendering import Services, actor_of, is_htmx, render, see_other
from dashboard.problems import BadInput
from dashboard.queries import dead_letters as query
from dashboard.queries.paging import parse_offset
from tickbird.job import QueueRef

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


@get("/dead-letters", name="dead_letters")
async def dead_letters(
    request: Request[Any, Any, Any], services: NamedDependency[Services]
) -> Template:
    """Failed jobs, newest first."""
    return await dead_letters_answer(request, services)


@post("/dead-letters/replay", name="replay_shown", guards=[same_origin], status_code=200)
async def replay_shown(
    request: Request[Any, Any, Any], services: NamedDependency[Services]
) -> Template | Redirect:
    """Replay the jobs a form lists as `job=<queue>/<id>`, at most 50."""
    form = await request.form()
    chosen = chosen_of(str(value) for value in form.getall("job", []))
    done = await services.actions.replay_all(chosen, actor_of(request, services))
    await services.refreshed()
    if not is_htmx(request):
        queue = (
            to_segment(asked_of(request.query_params).queue)
            if request.query_params.get("queue")
            else ""
        )
        said = f"said=replayed&done={done.done}&asked={done.asked}&queue={queue}"
        return see_other(request, "dead_letters", said)
    return await dead_letters_answer(request, services, notice=done.sentence)


async def dead_letters_answer(
    request: Request[Any, Any, Any], services: Services, *, notice: str = ""
) -> Template:
    """The page as the query string asks for it; also the answer to actions on it."""
    snapshot = services.figures()
    view = await query.dead_letters(snapshot, asked_of(request.query_params), services.reads)
    return render(request, services, snapshot, "dead_letters", notice=notice, view=view)


def asked_of(params: Mapping[str, str]) -> query.Request:
    """The query string as a request; BadInput names what is wrong."""
    label = params.get("queue", "")
    return query.Request(
        queue=from_segment(label) if label else "", offset=parse_offset(params.get("offset"))
    )


def chosen_of(values: Iterable[str]) -> dict[QueueRef, list[str]]:
    """Form values `<queue>/<id>`, each part a path segment, as ids per queue."""
    chosen: dict[QueueRef, list[str]] = {}
    for count, value in enumerate(values, start=1):
        label, slash, job_id = value.partition("/")
        if count > MAX_REPLAYS:
            raise BadInput(f"At most {MAX_REPLAYS} jobs can be replayed at once.")
        if not slash or not label or not job_id:
            raise BadInput("job must be a queue and an id.")
        chosen.setdefault(QueueRef.from_label(from_segment(label)), []).append(from_segment(job_id))
    if not chosen:
        raise BadInput("No job was chosen.")
    return chosen
