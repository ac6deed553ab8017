"""What machines ask for: health, readiness, /metrics, the icon."""

from __future__ import annotations

from typing import Any

from litestar import Request, Response, get
from litestar.di import NamedDependency
from litestar.response import File

from dashboard.assets import STATIC
from dashboard.exporter import render as render_metrics
from dashboard.observer.snapshot import Snapshot
from dashboard.pages.rendering import Services

READY_S = 10.0


@get("/healthz", name="healthz", sync_to_thread=False, media_type="text/plain")
def healthz() -> str:
    """The process answers."""
    return "ok"


@get("/readyz", name="readyz", sync_to_thread=False)
def readyz(services: NamedDependency[Services]) -> Response[str]:
    """Whether a sample succeeded within the last 10 seconds."""
    snapshot = services.sampler.snapshot
    is_ready = not snapshot.is_blank and services.sampler.age_s() <= READY_S
    return Response(
        "ok" if is_ready else "no sample",
        status_code=200 if is_ready else 503,
        media_type="text/plain",
    )


class MetricsCache:
    """The text of /metrics of one snapshot, per format: many scrapers cost one rendering."""

    def __init__(self) -> None:
        self._snapshot: Snapshot | None = None
        self._bodies: dict[str | None, tuple[bytes, str]] = {}

    def render(self, snapshot: Snapshot, accept: str | None) -> tuple[bytes, str]:
        """Body and content type."""
        if self._snapshot is not snapshot or len(self._bodies) > 8:  # noqa: PLR2004 - formats are few
            self._snapshot, self._bodies = snapshot, {}
        if accept not in self._bodies:
            self._bodies[accept] = render_metrics(snapshot, accept)
        return self._bodies[accept]


@get("/metrics", name="metrics", sync_to_thread=False)
def metrics(
    request: Request[Any, Any, Any],
    services: NamedDependency[Services],
    metrics_cache: NamedDependency[MetricsCache],
) -> Response[bytes]:
    """Figures for Prometheus."""
    body, content_type = metrics_cache.render(
        services.sampler.snapshot, request.headers.get("accept")
    )
    return Response(body, headers={"Content-Type": content_type, "Vary": "Accept, Accept-Encoding"})


@get("/favicon.ico", name="favicon", sync_to_thread=False)
def favicon() -> File:
    """The icon, for browsers that ask at its old place."""
    return File(
        STATIC / "img" / "favicon.svg",
        media_type="image/svg+xml",
        content_disposition_type="inline",
    )
