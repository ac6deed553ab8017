"""The overview: `/`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from litestar import Request, get
from litestar.di import NamedDependency
from litestar.response import Template

from dashboard.pages.rendering import Services, render
from dashboard.problems import BadInput
from dashboard.queries import overview as query
from dashboard.queries.paging import parse_offset

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_FILTER = 128


@get("/", name="overview", sync_to_thread=False)
def overview(request: Request[Any, Any, Any], services: NamedDependency[Services]) -> Template:
    """All queues, what hurts first."""
    return overview_answer(request, services)


def overview_answer(
    request: Request[Any, Any, Any], services: Services, *, notice: str = ""
) -> Template:
    """The overview as the query string asks for it; also the answer to actions on it."""
    asked = asked_of(request.query_params)
    snapshot = services.figures()
    view = query.overview(snapshot, asked)
    return render(request, services, snapshot, "overview", notice=notice, view=view)


def asked_of(params: Mapping[str, str]) -> query.Request:
    """The query string as a request; BadInput names what is wrong."""
    needle = params.get("filter", "").strip()
    if len(needle) > MAX_FILTER:
        raise BadInput(f"filter must be at most {MAX_FILTER} characters.")
    sort = params.get("sort") or query.Sort.HURT
    if sort not in set(query.Sort):
        raise BadInput(f"sort must be one of: {', '.join(query.Sort)}.")
    return query.Request(
        filter=needle, sort=query.Sort(sort), offset=parse_offset(params.get("offset"))
    )
