"""The `tickbird` command. Other packages join with the entry point group `tickbird.commands`."""

from __future__ import annotations

import argparse
import asyncio
import importlib
import logging
import os
import sys
import threading
from collections.abc import Sequence
from importlib.metadata import entry_points

from tickbird.app import App
from tickbird.doctor import Finding, Level, examine_queue, examine_server
from tickbird.errors import InvalidOption, TickbirdError
from tickbird.inspector import Inspector
from tickbird.job import QueueRef
from tickbird.queue import Queue
from tickbird.storage.connection import Connection
from tickbird.version import VERSION
from tickbird.worker import Worker

USAGE_ERROR = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; what a user got wrong is one sentence and exit code 2."""
    parser = argparse.ArgumentParser(
        prog="tickbird",
        description="A job queue on BullMQ's Redis layout, with the cockpit built in.",
    )
    parser.add_argument("--version", action="version", version=f"tickbird {VERSION}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _worker_command(commands)
    _doctor_command(commands)
    for entry_point in entry_points(group="tickbird.commands"):
        entry_point.load()(commands)
    args = parser.parse_args(argv)
    try:
        code: int = args.run(args)
    except TickbirdError as error:
        print(f"tickbird: {error}", file=sys.stderr)  # noqa: T201 - a command talks to a terminal
        return USAGE_ERROR
    except KeyboardInterrupt:
        return 130
    return code


def _worker_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("worker", help="run jobs of an app")
    parser.add_argument("app", help="where the App is: module:attribute, e.g. shop.tasks:app")
    parser.add_argument(
        "-q", "--queues", help="comma-separated; default: all queues of the app's tasks"
    )
    parser.add_argument("--concurrency", type=int, default=10, help="jobs at a time (default 10)")
    parser.add_argument(
        "--threads", type=int, help="threads for sync tasks (default: as slots, <= 64)"
    )
    parser.add_argument(
        "--lock-ms",
        type=int,
        default=30_000,
        help="a job stays ours without a sign of life (default 30000)",
    )
    parser.add_argument(
        "--stalled-interval-ms", type=int, default=5_000, help="look for lost jobs (default 5000)"
    )
    parser.add_argument(
        "--grace", default="25s", help="let running jobs end when stopping (default 25s)"
    )
    parser.add_argument("--rate-limit", help="starts over all workers of a queue, e.g. 100/s")
    parser.add_argument("--max-started", type=int, help="fail jobs that were started more often")
    parser.add_argument(
        "--metrics-minutes", type=int, default=0, help="keep BullMQ's counts per minute so long"
    )
    parser.add_argument("--health-port", type=int, help="serve /healthz and /readyz on this port")
    parser.add_argument("--health-host", default="127.0.0.1", help="(default 127.0.0.1)")
    parser.add_argument("--name", help="shown as the worker of a job (default host:pid)")
    parser.add_argument("--redis-url", help="overrides the app's; else TICKBIRD_REDIS_URL")
    parser.add_argument(
        "--log-level", default="INFO", choices=["DEBUG", "INFO", "WARNING", "ERROR"]
    )
    parser.set_defaults(run=_run_worker)


def _run_worker(args: argparse.Namespace) -> int:
    logging.basicConfig(
        level=args.log_level, format="%(asctime)s %(levelname)s %(name)s %(message)s"
    )
    app = _load_app(args.app)
    if args.redis_url:
        app.connect_to(args.redis_url)
    queues = (
        args.queues.split(",") if args.queues else sorted({t.queue for t in app.tasks.values()})
    )
    if not queues:
        raise InvalidOption(f"{args.app} has no tasks, and no queues were given by -q")

    async def run() -> None:
        worker = Worker(
            app,
            queues=queues,
            concurrency=args.concurrency,
            threads=args.threads,
            lock_ms=args.lock_ms,
            stalled_interval_ms=args.stalled_interval_ms,
            grace=args.grace,
            name=args.name,
            rate_limit=args.rate_limit,
            max_started=args.max_started,
            metrics_minutes=args.metrics_minutes,
            health=None if args.health_port is None else (args.health_host, args.health_port),
        )
        try:
            await worker.run()
        finally:
            await app.aclose()

    asyncio.run(run())
    if any(thread.name.startswith("tickbird-job") for thread in threading.enumerate()):
        # A sync task still runs; its job went back to the queue. Python would wait for its thread.
        logging.shutdown()
        os._exit(0)
    return 0


def _doctor_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("doctor", help="examine the server and its queues")
    parser.add_argument("-q", "--queues", help="comma-separated; default: all that are found")
    parser.add_argument("--repair", action="store_true", help="mend what is found")
    parser.add_argument("--redis-url", help="else TICKBIRD_REDIS_URL, else the local server")
    parser.set_defaults(run=_run_doctor)


def _run_doctor(args: argparse.Namespace) -> int:
    async def run() -> list[Finding]:
        connection = Connection(args.redis_url)
        try:
            findings = await examine_server(connection)
            wanted = [
                QueueRef.from_label(label) for label in (args.queues or "").split(",") if label
            ]
            for ref in wanted or await Inspector(connection).discover():
                queue = Queue(ref.name, redis=connection, prefix=ref.prefix)
                findings += await examine_queue(queue, repair=args.repair)
        finally:
            await connection.aclose()
        return findings

    findings = asyncio.run(run())
    for finding in findings:
        print(f"{finding.level:<8} {finding.text}")  # noqa: T201 - a command talks to a terminal
    return int(any(finding.level is not Level.OK for finding in findings))


def _load_app(where: str) -> App:
    module_name, _, attribute = where.partition(":")
    sys.path.insert(0, os.getcwd())  # noqa: PTH109 - as `python -m` does
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not module_name.startswith(error.name):
            raise
        raise InvalidOption(
            f"no module {module_name!r}; give module:attribute, e.g. shop.tasks:app"
        ) from error
    app = getattr(module, attribute or "app", None)
    if not isinstance(app, App):
        raise InvalidOption(f"{module_name} has no tickbird.App named {attribute or 'app'!r}")
    return app


if __name__ == "__main__":
    sys.exit(main())
