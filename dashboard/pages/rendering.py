"""What every page shares: its services, its frame, and the part that htmx swaps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from litestar.response import Redirect, Template

from dashboard.actions.journal import Actor
from dashboard.actions.queues import replayed
from dashboard.assets import path_of
from dashboard.queries.health import health_of, require_figures
from dashboard.queries.paging import parse_offset

if TYPE_CHECKING:
    from collections.abc import Mapping

    from litestar import Request

    from dashboard.actions.queues import QueueActions
    from dashboard.observer.sampler import Sampler
    from dashboard.observer.snapshot import Snapshot
    from dashboard.queries.jobs import JobReads
    from dashboard.settings import Settings


class Services:
    """What handlers work with; app.py makes it, once.

    No dataclass: Litestar would take it apart and validate it on every request.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        sampler: Sampler,
        reads: JobReads,
        actions: QueueActions,
    ) -> None:
        self.settings = settings
        self.sampler = sampler
        self.reads = reads
        self.actions = actions

    def figures(self) -> Snapshot:
        """The latest snapshot; NoFigures if there never was a good one."""
        return require_figures(self.sampler.snapshot)

    async def refreshed(self) -> Snapshot:
        """A snapshot that has seen what an action just did."""
        self.reads.forget()
        return require_figures(await self.sampler.refresh())


def is_htmx(request: Request[Any, Any, Any]) -> bool:
    """Whether htmx asks for a part; going back in the history wants the whole page."""
    headers = request.headers
    return headers.get("hx-request") == "true" and "hx-history-restore-request" not in headers


def render(
    request: Request[Any, Any, Any],
    services: Services,
    snapshot: Snapshot,
    page: str,
    *,
    notice: str = "",
    **context: object,
) -> Template:
    """The page, or, for htmx, its partial with the parts of the frame that go with it."""
    return Template(
        "swap.html" if is_htmx(request) else f"pages/{page}.html",
        context={
            "page": page,
            "partial": f"partials/{page}.html",
            "health": health_of(snapshot, services.sampler.age_s()),
            "read_only": services.settings.read_only,
            "environment": services.settings.environment,
            "version": snapshot.version,
            "notice": notice or notice_of(request.query_params),
            **context,
        },
        headers={"Vary": "HX-Request"},
    )


def see_other(request: Request[Any, Any, Any], name: str, query: str, **segments: str) -> Redirect:
    """Without htmx: the page to go to after an action."""
    return Redirect(f"{path_of(request, name, **segments)}?{query}", status_code=303)


def notice_of(query: Mapping[str, str]) -> str:
    """What a page reached by a redirect says about the action before it."""
    match query.get("said"):
        case "paused":
            return "The queue is paused: running jobs end, no new one starts."
        case "resumed":
            return "The queue runs again."
        case "replayed":
            done, asked = (
                parse_offset(query.get("done"), "done"),
                parse_offset(query.get("asked"), "asked"),
            )
            return replayed(min(done, asked), asked)
        case _:
            return ""


def actor_of(request: Request[Any, Any, Any], services: Services) -> Actor:
    """Who asks, for the audit record; the gate has already checked the password."""
    credentials = services.settings.credentials
    client = request.client
    return Actor(
        who=credentials.user if credentials else "anonymous",
        peer=client.host if client else "",
    )
