"""The locks of running jobs: renewed from a thread, so that no handler can starve them.

The thread has its own connection and never touches the event loop, except to report a lock
as lost. A lock is lost when the server says so, or when the server has been silent for so
long that another worker may soon own the job.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import msgspec
from redis.exceptions import NoScriptError, RedisError

from tickbird.clock import Clock, SystemClock
from tickbird.job import QueueRef
from tickbird.storage import scripts
from tickbird.storage.connection import Connection
from tickbird.storage.keys import QueueKeys
from tickbird.storage.lanes import Lane
from tickbird.storage.wire import packed

logger = logging.getLogger(__name__)

_PAIRS_PER_CALL = 500
_MARGIN = 0.25
"""Share of the lock that is left when a lock counts as lost for lack of an answer. The next look
is at most two tenths away (one unanswered call, one pause), so handlers stop in time."""


@dataclass(slots=True)
class _Held:
    queue: QueueRef
    job_id: bytes
    token: bytes
    on_lost: Callable[[str], None]
    confirmed_s: float


@dataclass(slots=True, frozen=True)
class _WatchedLane:
    queue: QueueRef
    lane: Lane
    token: Callable[[], bytes]


@dataclass(slots=True)
class _Register:
    held: dict[tuple[bytes, bytes], _Held] = field(default_factory=dict)
    lanes: list[_WatchedLane] = field(default_factory=list)
    guard: threading.Lock = field(default_factory=threading.Lock)


class LockKeeper:
    """Holds the locks of one worker process; `start` and `stop` its thread."""

    def __init__(self, connection: Connection, *, lock_ms: int, clock: Clock | None = None) -> None:
        self._connection = connection
        self._lock_ms = lock_ms
        self._clock = clock or SystemClock()
        self._register = _Register()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._client: Any = None
        self._is_failing = False
        self.lock_s = lock_ms / 1_000
        self.renewed_at_s = self._clock.monotonic_s()
        """Monotonic time of the last round in which the server answered, or had nothing to."""

    def hold(
        self,
        queue: QueueRef,
        job_id: bytes,
        token: bytes,
        *,
        since_s: float,
        on_lost: Callable[[str], None],
    ) -> None:
        """Renew this lock from now on. `since_s`: monotonic time at which its take was sent.

        `on_lost(reason)` is called at most once, from the thread.
        """
        with self._register.guard:
            self._register.held[job_id, token] = _Held(queue, job_id, token, on_lost, since_s)

    def release(self, job_id: bytes, token: bytes) -> None:
        """Renew this lock no more: its attempt has ended and the end is settled."""
        with self._register.guard:
            self._register.held.pop((job_id, token), None)

    def watch(self, queue: QueueRef, lane: Lane, token: Callable[[], bytes]) -> None:
        """Renew also what a take on this lane may have taken while its reply is outstanding."""
        with self._register.guard:
            self._register.lanes.append(_WatchedLane(queue, lane, token))

    def start(self) -> None:
        """Start renewing."""
        self._client = self._connection.thread_client(timeout_s=self._lock_ms / 10_000)
        self._thread = threading.Thread(target=self._run, name="tickbird-locks", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop renewing; what is still held ends by itself."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=5)
        if self._client is not None:
            self._client.close()

    def _run(self) -> None:
        while not self._stop.wait(self._pause_s()):
            try:
                self.run_once()
            except Exception:  # the thread must outlive any fault: without it every lock runs out
                logger.exception("lock_renewal_failed")

    def _pause_s(self) -> float:
        """A third of the lock; a tenth while the server does not answer."""
        return self._lock_ms / 1_000 / (10 if self._is_failing else 3)

    def run_once(self) -> None:
        """Renew everything held, then give up what the server has not confirmed in time."""
        with self._register.guard:
            held = list(self._register.held.values())
            lanes = [watched for watched in self._register.lanes if not watched.lane.settled]
        queues = {item.queue for item in held} | {watched.queue for watched in lanes}
        try:
            for queue in queues:
                self._renew(
                    queue,
                    [item for item in held if item.queue == queue],
                    [watched for watched in lanes if watched.queue == queue],
                )
        except (RedisError, OSError) as error:
            if not self._is_failing:
                logger.warning("lock_renewal_unanswered error=%s", error)
            self._is_failing = True
        else:
            self._is_failing = False
            self.renewed_at_s = self._clock.monotonic_s()
        self._give_up_unconfirmed()

    def _renew(self, queue: QueueRef, held: list[_Held], lanes: list[_WatchedLane]) -> None:
        unanswered = [(w.lane.memo_key, w.lane.seq, w.token().decode()) for w in lanes]
        chunks = list(_chunks(held, _PAIRS_PER_CALL)) or [[]]
        for index, chunk in enumerate(chunks):
            sent_s = self._clock.monotonic_s()
            pairs = [(packed(item.job_id), packed(item.token)) for item in chunk]
            lost = set(self._call(queue, pairs, unanswered if index == 0 else []))
            for item in chunk:
                if item.job_id in lost:
                    self._lose(item, "another worker may own the job")
                else:
                    item.confirmed_s = sent_s

    def _call(self, queue: QueueRef, pairs: list[Any], unanswered: list[Any]) -> list[bytes]:
        keys = QueueKeys(queue)
        args = (
            1,
            keys.of("meta"),
            keys.prefix,
            self._lock_ms,
            msgspec.msgpack.encode(pairs),
            msgspec.msgpack.encode(unanswered),
        )
        try:
            reply = self._client.execute_command("EVALSHA", scripts.sha("renew_locks"), *args)
        except NoScriptError:
            reply = self._client.execute_command("EVAL", scripts.source("renew_locks"), *args)
        return list(reply)

    def _give_up_unconfirmed(self) -> None:
        longest_s = self._lock_ms / 1_000 * (1 - _MARGIN)
        now_s = self._clock.monotonic_s()
        with self._register.guard:
            silent = [
                item
                for item in self._register.held.values()
                if now_s - item.confirmed_s > longest_s
            ]
        for item in silent:
            self._lose(item, "Redis has not confirmed the lock in time")

    def _lose(self, item: _Held, reason: str) -> None:
        """Report a lock as lost, unless its attempt has ended while we asked."""
        with self._register.guard:
            if self._register.held.pop((item.job_id, item.token), None) is None:
                return
        item.on_lost(reason)


def _chunks(items: Iterable[_Held], size: int) -> Iterable[list[_Held]]:
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk
