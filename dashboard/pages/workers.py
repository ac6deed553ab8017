"""Who works: `/workers`."""

from __future__ import annotations

from typing import Any

from litestar import Request, get
from litestar.di import NamedDependency
from litestar.response import Template

from dashboard.pages.rendering import Services, render
from dashboard.queries.workers import workers_page


@get("/workers", name="workers", sync_to_thread=False)
def workers(request: Request[Any, Any, Any], services: NamedDependency[Services]) -> Template:
    """All workers, what they run, and queues nobody serves."""
    snapshot = services.figures()
    return render(request, services, snapshot, "workers", view=workers_page(snapshot))
