"""`tickbird dashboard`: serve the dashboard until SIGTERM or Ctrl-C."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from typing import TYPE_CHECKING

from dashboard.settings import Credentials, Settings
from tickbird import Inspector, InvalidOption

if TYPE_CHECKING:
    import argparse

GRACE_S = 1
"""Seconds that answers under way get to finish; event streams end at once."""


def dashboard_command(
    subparsers: argparse._SubParsersAction[argparse.ArgumentParser],
) -> None:
    """Add the `dashboard` command."""
    parser = subparsers.add_parser(
        "dashboard",
        help="serve the web dashboard",
        description="Serve the web dashboard, with /metrics for Prometheus.",
    )
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to bind (default: %(default)s)"
    )
    parser.add_argument(
        "--port",
        type=int,
        default=8000,
        help="port to bind; 0: any free one (default: %(default)s)",
    )
    parser.add_argument("--redis-url", help="which Redis (default: TICKBIRD_REDIS_URL, else local)")
    parser.add_argument(
        "--auth",
        metavar="USER:PASSWORD",
        help="sign-in by HTTP basic; needed on a public --host. The environment variable "
        "TICKBIRD_AUTH keeps it out of process lists",
    )
    parser.add_argument("--root-path", default="", help="prefix that a proxy in front strips")
    parser.add_argument("--read-only", action="store_true", help="refuse every action")
    parser.add_argument(
        "--allowed-host",
        action="append",
        default=[],
        metavar="NAME",
        help="a host name browsers may use besides localhost; may be repeated",
    )
    parser.add_argument("--environment", default="", help="a name for the header, e.g. production")
    parser.add_argument(
        "--alert-window",
        default="10m",
        metavar="DURATION",
        help="how long a depth must rise until the alert fires (default: %(default)s)",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Serve until told to stop. Mistakes in the options raise before anything is bound."""
    settings = settings_from(args)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    asyncio.run(require_answer(settings))
    listening = bind(settings.host, settings.port)
    with listening:
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        address = f"http://{host}:{listening.getsockname()[1]}{settings.root_path}/"
        print(address, flush=True)  # noqa: T201 - the one line a command line owes its user
        serve(settings, listening)
    return 0


def settings_from(args: argparse.Namespace) -> Settings:
    """The settings that options and environment ask for."""
    from tickbird.durations import parse_duration_ms  # noqa: PLC0415 - beside its one use

    auth = args.auth or os.environ.get("TICKBIRD_AUTH")
    return Settings(
        redis_url=args.redis_url,
        host=args.host,
        port=args.port,
        root_path=args.root_path.rstrip("/"),
        credentials=Credentials.parse(auth) if auth else None,
        read_only=args.read_only,
        allowed_hosts=tuple(args.allowed_host),
        environment=args.environment,
        alert_window_s=parse_duration_ms(args.alert_window, "--alert-window") / 1_000,
    )


async def require_answer(settings: Settings) -> None:
    """Raise RedisUnavailable, in one sentence, when no server answers at the start."""
    inspector = Inspector(settings.redis_address)
    try:
        await inspector.server()
    finally:
        await inspector.aclose()


def bind(host: str, port: int) -> socket.socket:
    """A listening socket; InvalidOption, in one sentence, when the address cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host.strip("[]"), port), family=family, backlog=512)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise InvalidOption(
            f"cannot listen on {host}:{port} ({reason}); choose another --host or --port"
        ) from error


def serve(settings: Settings, listening: socket.socket) -> None:
    """Run the server on a socket; returns within about a second of SIGTERM or SIGINT."""
    import uvicorn  # noqa: PLC0415 - other commands need no web stack

    from dashboard.app import create_app  # noqa: PLC0415 - as above

    app = create_app(settings)
    feed = app.state.feed

    class Server(uvicorn.Server):
        """uvicorn would wait for open event streams for ever: end them first."""

        def handle_exit(self, sig: int, frame: object) -> None:
            feed.close()
            super().handle_exit(sig, frame)  # type: ignore[arg-type]  # a frame or None

    # uvicorn raises the signal again when all is closed: ours was the end we wanted.
    signal.signal(signal.SIGTERM, lambda *_: None)
    config = uvicorn.Config(
        app,
        root_path=settings.root_path,
        timeout_graceful_shutdown=GRACE_S,
        server_header=False,
        access_log=False,
        log_level="warning",
        proxy_headers=False,
        h11_max_incomplete_event_size=32_000,
    )
    Server(config).run(sockets=[listening])
