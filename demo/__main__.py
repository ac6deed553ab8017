"""`python -m demo`: the whole product on real work, in one command.

Starts an embedded server (unless a Redis URL is given), the receivers, two workers, the
shop, the dashboard and the load generator, each a process of its own, and ends them all
within five seconds on Ctrl-C or SIGTERM. Nothing is left behind.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import socket
import sys
import tempfile
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from demo.children import Child, ChildDied, Children, Rank
from demo.scenarios import SCENARIOS
from tickbird import Inspector, InvalidOption, TickbirdError
from tickbird.embedded import EmbeddedServer

if TYPE_CHECKING:
    from collections.abc import Sequence

HOST = "127.0.0.1"
_MEMORY_LIMIT = "512mb"
_LAST_PORT = 65_535
_PORTS_TO_TRY = 100

_WORKERS = {
    "worker-1": ("-q", "mail,invoices,webhooks,media,reports", "--concurrency", "20"),
    # Some slots that no slow webhook can hold, so that only webhooks wait during a sale.
    "worker-2": ("-q", "mail,invoices,media,reports", "--concurrency", "10"),
}
_WORKER_OPTIONS = (
    *("--lock-ms", "5000", "--stalled-interval-ms", "1000"),  # short, so that a kill -9 heals soon
    *("--grace", "1s"),
    *("--log-level", "WARNING"),
)
_DASHBOARD_OPTIONS = (
    *("--host", HOST),
    *("--alert-window", "30s"),  # ten minutes are too long for a tour of three
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; 0 when it was ended, 1 when a part of it died, 2 when it could not begin."""
    options = _parse(arguments)
    try:
        return asyncio.run(_run(options))
    except TickbirdError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 2


async def _run(options: argparse.Namespace) -> int:
    _end_on_signals()
    children: Children | None = None
    with ExitStack() as leave_nothing:
        try:
            folder = Path(
                leave_nothing.enter_context(
                    tempfile.TemporaryDirectory(prefix="tickbird-", ignore_cleanup_errors=True)
                )
            )
            server = None
            redis_url = options.redis_url
            if not redis_url:
                server = EmbeddedServer(folder / "redis", memory_limit=_MEMORY_LIMIT)
                redis_url = leave_nothing.enter_context(server).url
            await _require_server(redis_url)

            ports = Ports.choose(options.port)
            children = Children(_environment(redis_url, ports, folder / "files"), server)
            await _start(children, ports, options)
            await children.watch()
        except asyncio.CancelledError:
            _say("ending ...")
            return 0
        except ChildDied as death:
            _say(f"demo: {death}")
            return 1
        finally:
            if children is not None:
                await children.end()
    return 0


def _end_on_signals() -> None:
    """The first Ctrl-C or SIGTERM ends the demo; further ones do not disturb its end.

    So does a terminal that is closed.
    """
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def end() -> None:
        for number in signals:
            loop.add_signal_handler(number, lambda: None)
        if task is not None:
            task.cancel()

    for number in signals:
        loop.add_signal_handler(number, end)


async def _require_server(redis_url: str) -> None:
    """Raise a TickbirdError with a plain sentence when the server cannot serve us."""
    inspector = Inspector(redis_url)
    try:
        await inspector.server()
    finally:
        await inspector.aclose()


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """Where everything listens, all on the loopback address."""

    dashboard: int
    shop: int
    receivers: int
    smtp: int

    @classmethod
    def choose(cls, wanted: int) -> Ports:
        """The wanted port or the next free one for the dashboard, then one for the shop; any for the rest."""
        with ExitStack() as held:  # until all are chosen, so that they differ
            dashboard = _hold_free_port(held, wanted)
            shop = _hold_free_port(held, dashboard + 1 if wanted else 0)
            chosen = cls(
                dashboard=dashboard,
                shop=shop,
                receivers=_hold_free_port(held, 0),
                smtp=_hold_free_port(held, 0),
            )
        if wanted not in (0, chosen.dashboard):
            _say(f"port {wanted} is taken: the dashboard is on {chosen.dashboard}")
        return chosen


def _hold_free_port(held: ExitStack, first: int) -> int:
    """The first free port from there on (0: any), held until the stack ends."""
    for port in range(first, min(first + _PORTS_TO_TRY, _LAST_PORT) + 1):
        probe = held.enter_context(socket.socket())
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the servers will
        with suppress(OSError):
            probe.bind((HOST, port))
            return int(probe.getsockname()[1])
    raise InvalidOption(f"no free port from {first} on: choose another with --port")


def _environment(redis_url: str, ports: Ports, files: Path) -> dict[str, str]:
    """What the children find in theirs: ours, and where everything is."""
    root = str(Path(__file__).parent.parent)
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")])),
        "PYTHONUNBUFFERED": "1",
        "TICKBIRD_REDIS_URL": redis_url,
        "SHOP_SMTP": f"{HOST}:{ports.smtp}",
        "SHOP_WEBHOOK_URL": f"http://{HOST}:{ports.receivers}/webhooks",
        "SHOP_FILES": str(files),
    }


async def _start(children: Children, ports: Ports, options: argparse.Namespace) -> None:
    """Start everything, say where the page is once it answers, then let the customers come."""

    def child(name: str, command: list[str], **how: Any) -> Child:
        return Child(name, command, shown_as=f"{name} | " if options.verbose else None, **how)

    receivers = child(
        "receivers",
        _demo("receivers", "--port", ports.receivers, "--smtp-port", ports.smtp),
        rank=Rank.SECOND,
    )
    workers = [
        child(name, _tickbird("worker", "demo.tasks:app", *of_its, *_WORKER_OPTIONS), restarts=True)
        for name, of_its in _WORKERS.items()
    ]
    shop = child("shop", _demo("shop", "--port", ports.shop))
    dashboard = child(
        "dashboard", _tickbird("dashboard", "--port", ports.dashboard, *_DASHBOARD_OPTIONS)
    )
    await children.start(receivers, *workers, shop, dashboard)
    await children.wait_until_answering(receivers, HOST, ports.receivers)
    await children.wait_until_answering(shop, HOST, ports.shop)
    await children.wait_until_answering(dashboard, HOST, ports.dashboard)

    _say(
        f"""
Tickbird, on an online store at work. Open

http://{HOST}:{ports.dashboard}

The shop takes orders at http://{HOST}:{ports.shop}/orders.
The workers are processes {workers[0].pid} and {workers[1].pid}: kill -9 one, nothing is lost.
Ctrl-C ends everything and leaves nothing behind.
"""
    )
    shop_url, receivers_url = f"http://{HOST}:{ports.shop}", f"http://{HOST}:{ports.receivers}"
    where = ("--url", shop_url, "--receivers-url", receivers_url)
    load = _demo("load", "--scenario", options.scenario, *where)
    await children.start(Child("load", load, shown_as="", may_finish=True))


def _demo(module: str, *arguments: object) -> list[str]:
    return [sys.executable, "-m", f"demo.{module}", *map(str, arguments)]


def _tickbird(*arguments: object) -> list[str]:
    """The `tickbird` command of this very Python, whatever the PATH holds."""
    return [sys.executable, "-m", "tickbird.cli", *map(str, arguments)]


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m demo", description=__doc__)
    parser.add_argument(
        "--port",
        type=int,
        default=8000,
        help="of the dashboard; taken: the next free one; 0: any (default: %(default)s)",
    )
    parser.add_argument(
        "--redis-url",
        default=os.environ.get("TICKBIRD_REDIS_URL") or os.environ.get("REDIS_URL"),
        help="use this Redis 7.0+ or Valkey 7.2+ (default: TICKBIRD_REDIS_URL, else REDIS_URL, "
        "else an embedded server)",
    )
    parser.add_argument(
        "--scenario", choices=SCENARIOS, default="tour", help="default: %(default)s"
    )
    parser.add_argument("--verbose", action="store_true", help="show what each process says")
    options = parser.parse_args(arguments)
    if not 0 <= options.port <= _LAST_PORT:
        parser.error(f"--port must be between 0 and {_LAST_PORT}, not {options.port}")
    return options


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
