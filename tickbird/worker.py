"""A worker process: slots, one fetch loop per queue, locks, maintenance, graceful stop."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import signal
import socket
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

from tickbird.app import App
from tickbird.attempt import Attempt, AttemptSettings
from tickbird.doctor import require_usable_server
from tickbird.durations import Duration, parse_duration_ms
from tickbird.errors import InvalidOption
from tickbird.fetch import FetchLoop, FetchSettings
from tickbird.health import HealthServer
from tickbird.heartbeat import INTERVAL_S, Heartbeat
from tickbird.job import QueueRef
from tickbird.limits import RateLimit
from tickbird.lock import LockKeeper
from tickbird.maintenance import DEFAULT_STALL_LIMIT, Maintenance
from tickbird.options import require_queue_name
from tickbird.periodic import run_every
from tickbird.runners import Runners
from tickbird.slots import Slots
from tickbird.version import VERSION

logger = logging.getLogger(__name__)

MIN_LOCK_MS, MAX_LOCK_MS = 500, 600_000
MAX_CONCURRENCY = 10_000
_SETTLE_S = 1.5
"""How long a stopping worker tries to hand in what it has, after grace has run out."""


class Worker:
    """Runs an app's jobs from some queues, `concurrency` at a time over all of them.

    `lock_ms`: how long a job stays this worker's without a sign of life (0.5 s to 10 min); a
    dead worker's jobs are back after it plus one `stalled_interval_ms`. `grace`: how long a
    stopping worker waits for running jobs; what is not done then goes back to its queue without
    spending an attempt (a sync function goes on in its thread until the process ends).
    `threads`: for sync functions, by default as many as slots, at most 64.

    `rate_limit` ("100/s"): starts per window over all workers of a queue, where the queue has no
    limit of its own. `max_started`: a job that was started more often fails without running.
    `metrics_minutes`: keep BullMQ's own counts per minute for so long (0: do not).
    `recover_foreign`: bring back also jobs that workers of other clients have left, by this
    worker's `stall_limit`; theirs leave it to ours while one lives. Not where they work without
    renewing locks. `health`: host and port on which `/healthz` and `/readyz` are served; port 0 is
    any free one.
    """

    def __init__(
        self,
        app: App,
        *,
        queues: Sequence[str] = ("default",),
        concurrency: int = 10,
        threads: int | None = None,
        lock_ms: int = 30_000,
        stalled_interval_ms: int = 5_000,
        stall_limit: int = DEFAULT_STALL_LIMIT,
        grace: Duration = "25s",
        name: str | None = None,
        rate_limit: str | RateLimit | None = None,
        max_started: int | None = None,
        metrics_minutes: int = 0,
        recover_foreign: bool = True,
        health: tuple[str, int] | None = None,
    ) -> None:
        if isinstance(queues, str) or not queues:
            raise InvalidOption(f"queues must be a list of queue names, not {queues!r}")
        for queue in queues:
            require_queue_name(queue)
        _require_between("concurrency", concurrency, 1, MAX_CONCURRENCY)
        _require_between("lock_ms", lock_ms, MIN_LOCK_MS, MAX_LOCK_MS)
        _require_between("stalled_interval_ms", stalled_interval_ms, 100, MAX_LOCK_MS)
        _require_between("stall_limit", stall_limit, 0, 100)
        self.id = secrets.token_hex(16)
        self.app = app
        self.queues = tuple(dict.fromkeys(queues))
        self.concurrency = concurrency
        self.grace_s = parse_duration_ms(grace, "grace") / 1_000
        self.name = name or f"{socket.gethostname()}:{os.getpid()}"
        self._threads = threads if threads is not None else min(concurrency, 64)
        _require_between("threads", self._threads, 1, MAX_CONCURRENCY)
        self._lock_ms = lock_ms
        self._stalled_interval_s = stalled_interval_ms / 1_000
        self._stall_limit = stall_limit
        self._rate_limit = None if rate_limit is None else RateLimit.parse(rate_limit)
        if max_started is not None:
            _require_between("max_started", max_started, 1, 1_000_000)
        self._max_started = max_started
        _require_between("metrics_minutes", metrics_minutes, 0, 60 * 24 * 14)
        self._metrics_minutes = metrics_minutes
        self._recover_foreign = recover_foreign
        self._health = health
        self.loops: list[FetchLoop] = []
        self.health_port: int | None = None
        """The port of the health checks, once they are served."""
        self._stop = asyncio.Event()

    def __repr__(self) -> str:
        return f"Worker({self.app.name!r}, queues={self.queues}, concurrency={self.concurrency})"

    def stop(self) -> None:
        """Begin a graceful stop; `run` returns within grace + 2 s. Safe to call again."""
        self._stop.set()

    async def run(self, *, handle_signals: bool = True) -> None:
        """Work until stopped (SIGTERM and SIGINT stop it, unless told otherwise).

        Raises RedisUnavailable or UnsupportedServer before anything is taken.
        """
        await require_usable_server(self.app.connection)
        slots = Slots(self.concurrency)
        keeper = LockKeeper(self.app.connection, lock_ms=self._lock_ms)
        runners = Runners(self._threads, self.concurrency)
        loops = self.loops = self._fetch_loops(slots, keeper, runners)
        heartbeat = Heartbeat(
            self.app.connection, self.id, VERSION, loops, slots, is_stopping=self._stop.is_set
        )
        if handle_signals:
            self._handle_signals()
        await self.app.upsert_schedules()
        health = await self._serve_health(loops, slots, keeper)
        keeper.start()
        logger.info(
            "worker_started id=%s queues=%s concurrency=%d",
            self.id,
            ",".join(self.queues),
            self.concurrency,
        )
        drained = asyncio.Event()
        try:
            async with asyncio.TaskGroup() as group:
                fetching = [group.create_task(loop.run()) for loop in loops]
                group.create_task(run_every(INTERVAL_S, heartbeat.run_once, stop=drained))
                for care in self._maintenance():
                    group.create_task(
                        run_every(self._stalled_interval_s, _pass(care), stop=self._stop)
                    )
                await self._stop.wait()
                await self._drain(loops, fetching)
                drained.set()
            await _quietly(heartbeat.say_goodbye)
        finally:
            if health is not None:
                await health.stop()
            keeper.stop()
            runners.close()
            logger.info("worker_stopped id=%s", self.id)

    async def _drain(
        self, loops: Sequence[FetchLoop], fetching: Sequence[asyncio.Task[None]]
    ) -> None:
        """Let running jobs end within grace, hand back the rest, settle what has ended."""
        for loop in loops:
            loop.stop_taking()
        running = sum(len(loop.running) for loop in loops)
        logger.info("worker_stopping id=%s running=%d grace_s=%g", self.id, running, self.grace_s)
        _, unfinished = await asyncio.wait(fetching, timeout=self.grace_s)
        if not unfinished:
            return
        for loop in loops:
            loop.hand_back_all()
        _, unsettled = await asyncio.wait(fetching, timeout=_SETTLE_S)
        for task in unsettled:  # Redis does not answer: the jobs come back by their deadline
            task.cancel()

    def _fetch_loops(self, slots: Slots, keeper: LockKeeper, runners: Runners) -> list[FetchLoop]:
        settings = FetchSettings(
            self.id,
            self.name,
            self._lock_ms,
            self._rate_limit,
            self._metrics_minutes,
            self._stall_limit if self._recover_foreign else None,
        )
        attempts = AttemptSettings(
            tasks=self.app.tasks,
            runners=runners,
            keep_completed=self.app.keep_completed,
            keep_failed=self.app.keep_failed,
            max_started=self._max_started,
        )
        suspects: set[bytes] = set()
        return [
            FetchLoop(
                self.app.connection,
                QueueRef(queue, self.app.prefix),
                settings,
                slots=slots,
                keeper=keeper,
                make_attempt=partial(Attempt, queue=self.app.queue(queue), settings=attempts),
                suspects=suspects,
            )
            for queue in self.queues
        ]

    async def _serve_health(
        self, loops: Sequence[FetchLoop], slots: Slots, keeper: LockKeeper
    ) -> HealthServer | None:
        if self._health is None:
            return None
        host, port = self._health
        health = HealthServer(
            loops, host=host, port=port, is_stopping=self._stop, slots=slots, keeper=keeper
        )
        self.health_port = await health.start()
        logger.info("health_served host=%s port=%d", host, self.health_port)
        return health

    def _maintenance(self) -> list[Maintenance]:
        return [
            Maintenance(
                self.app.connection,
                QueueRef(queue, self.app.prefix),
                interval_s=self._stalled_interval_s,
                grace_s=self._lock_ms / 3_000,
                stall_limit=self._stall_limit,
                recover_foreign=self._recover_foreign,
            )
            for queue in self.queues
        ]

    def _handle_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)


def _pass(care: Maintenance) -> Callable[[], Awaitable[None]]:
    async def run_once() -> None:
        await care.run_once()

    return run_once


async def _quietly(call: Callable[[], Awaitable[Any]]) -> None:
    """A last word that may fail: the worker is leaving, and its entry ends by itself."""
    try:
        async with asyncio.timeout(0.5):
            await call()
    except Exception as error:  # noqa: BLE001 - see the docstring
        logger.debug("goodbye_failed error=%s", error)


def _require_between(option: str, value: int, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise InvalidOption(f"{option} must be between {low:,} and {high:,}, not {value!r}")
