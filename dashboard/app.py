"""create_app(settings): the one place that wires the dashboard."""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from litestar import Litestar, Request, Response
from litestar.config.compression import CompressionConfig
from litestar.datastructures import CacheControlHeader
from litestar.di import Provide
from litestar.exceptions import HTTPException
from litestar.plugins.jinja import JinjaTemplateEngine
from litestar.response import Template
from litestar.static_files import create_static_files_router
from litestar.template import TemplateConfig

from dashboard import assets, filters
from dashboard.actions.journal import Journal
from dashboard.actions.queues import QueueActions
from dashboard.alerts.engine import AlertEngine
from dashboard.auth.gate import Gate
from dashboard.auth.headers import add_security_headers
from dashboard.live import LiveFeed, events
from dashboard.observer.sampler import Sampler
from dashboard.pages.dead_letters import dead_letters, replay_shown
from dashboard.pages.jobs import job, replay_job
from dashboard.pages.machines import (
    MetricsCache,
    favicon,
    healthz,
    metrics,
    readyz,
)
from dashboard.pages.overview import overview
from dashboard.pages.queues import chart, pause, queue, resume
from dashboard.pages.rendering import Services, is_htmx
from dashboard.pages.workers import workers
from dashboard.problems import Problem, Refused, problem_of
from dashboard.queries.health import health_of
from dashboard.queries.jobs import JobReads
from dashboard.store import DashboardStore
from tickbird import Inspector, Queue
from tickbird.clock import SystemClock
from tickbird.errors import TickbirdError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from dashboard.settings import Settings
    from tickbird.job import QueueRef

log = logging.getLogger(__name__)

MAX_BODY_BYTES = 64_000
CLOSE_S = 0.5


def create_app(settings: Settings) -> Litestar:
    """The dashboard as an ASGI application. Redis is first asked when it starts."""
    clock = SystemClock()
    inspector = Inspector(settings.redis_address)
    store = DashboardStore(settings.redis_address)
    feed = LiveFeed(began=clock.now_ms())
    journal = Journal(store=store, clock=clock, read_only=settings.read_only)
    sampler = Sampler(
        source=inspector,
        judge=AlertEngine(settings),
        clock=clock,
        publish=feed.publish,
        actions=lambda: dict(journal.counts),
        interval_s=settings.sample_interval_s,
    )

    def open_queue(ref: QueueRef) -> Queue:
        return Queue(ref.name, redis=settings.redis_address, prefix=ref.prefix)

    services = Services(
        settings=settings,
        sampler=sampler,
        reads=JobReads(source=inspector, clock=clock),
        actions=QueueActions(journal=journal, open_queue=open_queue),
    )

    @asynccontextmanager
    async def running(_app: Litestar) -> AsyncIterator[None]:
        await sampler.run_once()  # the first page has figures; a dead server costs 8 s
        closing = asyncio.Event()
        sampling = asyncio.create_task(sampler.run(closing))
        try:
            yield
        finally:
            feed.close()
            closing.set()
            _, late = await asyncio.wait({sampling}, timeout=CLOSE_S)
            for task in late:  # a server that does not answer must not hold us
                task.cancel()
            await asyncio.gather(sampling, return_exceptions=True)
            await inspector.aclose()
            await store.aclose()

    app = Litestar(
        route_handlers=[
            overview,
            queue,
            chart,
            pause,
            resume,
            job,
            replay_job,
            dead_letters,
            replay_shown,
            workers,
            healthz,
            readyz,
            metrics,
            events,
            favicon,
            create_static_files_router(
                "/static",
                [assets.STATIC],
                cache_control=CacheControlHeader(max_age=31_536_000, immutable=True, public=True),
            ),
        ],
        dependencies={
            "services": _provide(services),
            "metrics_cache": _provide(MetricsCache()),
            "feed": _provide(feed),
        },
        lifespan=[running],
        exception_handlers=_error_handlers(services),
        template_config=TemplateConfig(
            instance=JinjaTemplateEngine.from_environment(environment())
        ),
        before_send=[add_security_headers],
        compression_config=CompressionConfig("gzip", gzip_compress_level=5, exclude=["/events"]),
        request_max_body_size=MAX_BODY_BYTES,
        openapi_config=None,
        logging_config=None,
    )
    app.asgi_handler = Gate(app.asgi_handler, settings)
    app.state.services = services
    app.state.feed = feed
    return app


def _provide(value: object) -> Provide:
    """One object for the whole life of the application."""

    def provide() -> Any:
        return value

    return Provide(provide, sync_to_thread=False)


def environment() -> Environment:
    """The one template environment: everything escaped, nothing silently missing."""
    env = Environment(
        loader=FileSystemLoader(assets.TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=filters.finalize,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    env.globals.update(url=assets.url, static=assets.static, integrity=assets.integrity)
    env.filters.update(filters.FILTERS, segment=assets.to_segment)
    return env


def _error_handlers(services: Services) -> dict[Any, Any]:
    def handle(request: Request[Any, Any, Any], error: Exception) -> Response[Any]:
        problem = problem_of(error)
        if problem.status >= 500 and not isinstance(error, Refused | TickbirdError):  # noqa: PLR2004
            log.error("request_failed path=%s", filters.printable(request.url.path), exc_info=error)
        return _answer(request, problem, services)

    return {HTTPException: handle, Refused: handle, TickbirdError: handle, 500: handle}


def _answer(request: Request[Any, Any, Any], problem: Problem, services: Services) -> Response[Any]:
    """For htmx a fragment for #flash, for browsers a page, else problem+json."""
    context = {
        "page": "problem",
        "problem": problem,
        "health": health_of(services.sampler.snapshot, services.sampler.age_s()),
        "read_only": services.settings.read_only,
        "environment": services.settings.environment,
        "version": services.sampler.snapshot.version,
        "notice": "",
    }
    if is_htmx(request):
        headers = {"HX-Retarget": "#flash", "HX-Reswap": "innerHTML", "Vary": "HX-Request"}
        return Template(
            "partials/problem.html", context=context, headers=headers, status_code=problem.status
        )
    if "text/html" in request.headers.get("accept", ""):
        return Template("pages/problem.html", context=context, status_code=problem.status)
    return Response(
        {
            "type": "about:blank",
            "title": problem.title,
            "status": problem.status,
            "detail": problem.detail,
        },
        status_code=problem.status,
        media_type="application/problem+json",
    )
