"""The fetch loop of one queue: hands in what has ended, takes what there are slots for.

One call does both; a batch is what is there now, nothing waits for it to fill. The loop
ends only by shutdown: whatever Redis replies, it goes on.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec
from redis.exceptions import RedisError

from tickbird.attempt import Attempt
from tickbird.clock import Clock, SystemClock
from tickbird.errors import TickbirdError
from tickbird.job import QueueRef
from tickbird.limits import RateLimit
from tickbird.lock import LockKeeper
from tickbird.slots import Slots
from tickbird.storage.connection import Connection
from tickbird.storage.keys import QueueKeys
from tickbird.storage.lanes import Lanes
from tickbird.storage.wire import DONE, EndedAttempt, TakenJob, taken_job

logger = logging.getLogger(__name__)

IDLE_POLL_S = 1.0
"""An idle worker looks each second, whatever the marker says: it is what makes delayed jobs
punctual when a peer's clock or wake-up is late."""
_ENDED_PER_CALL = 500
_ENDED_BYTES_PER_CALL = 1024 * 1024
_SUSPECT_STALLS = 2
_PAUSE_AFTER_FAULT_S = 0.5


@dataclass(frozen=True, slots=True)
class FetchSettings:
    """What all fetch loops of a worker have in common."""

    worker_id: str
    worker_name: str
    lock_ms: int
    rate_limit: RateLimit | None = None
    metrics_minutes: int = 0
    stall_limit: int | None = None
    """Stalls up to which a job runs that another client has given up on; None: it fails."""

    @property
    def message(self) -> bytes:
        """What lib/take.lua wants to know of the worker."""
        limit = self.rate_limit
        return msgspec.msgpack.encode(
            {
                "lock_ms": self.lock_ms,
                "name": self.worker_name,
                "data_points": self.metrics_minutes,
                **({} if limit is None else {"max": limit.max, "duration": limit.duration_ms}),
                **({} if self.stall_limit is None else {"stall_limit": self.stall_limit}),
            }
        )


class FetchLoop:
    """One queue's loop. `make_attempt` turns a taken job into an Attempt."""

    def __init__(
        self,
        connection: Connection,
        queue: QueueRef,
        settings: FetchSettings,
        *,
        slots: Slots,
        keeper: LockKeeper,
        make_attempt: Callable[[TakenJob], Attempt],
        suspects: set[bytes],
        clock: Clock | None = None,
    ) -> None:
        self.queue = queue
        self.running: dict[bytes, Attempt] = {}
        self.looked_at_s: float | None = None
        """Monotonic time of the last answered call; readiness is its age."""
        self._connection = connection
        self._keys = QueueKeys(queue)
        self._settings = settings
        self._slots = slots
        self._keeper = keeper
        self._make_attempt = make_attempt
        self._suspects = suspects
        self._clock = clock or SystemClock()
        self._lane = Lanes(connection, queue).open()
        self._ended: deque[tuple[Attempt, EndedAttempt]] = deque()
        self._wake = asyncio.Event()
        self._wake_up = self._wake.set  # one object, so that Slots knows it again
        self._is_hungry = True
        self._idle = asyncio.Event()
        self._look_again: asyncio.TimerHandle | None = None
        self._stopping = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._fault = ""
        keeper.watch(queue, self._lane, self._token)

    def stop_taking(self) -> None:
        """Take no more jobs; the loop ends once all that run have ended and are handed in."""
        self._stopping.set()
        self._wake.set()
        self._idle.set()  # lets the listener see it

    def find(self, job_id: bytes, token: bytes) -> Attempt | None:
        """The running attempt of a job under this lock."""
        return self.running.get(token + job_id)

    def hand_back_all(self) -> None:
        """Stop what still runs and give it back to the queue."""
        for attempt in list(self.running.values()):
            attempt.hand_back()

    async def run(self) -> None:
        """Fetch until stopped and drained."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._listen())
            while not (self._stopping.is_set() and not self.running and not self._ended):
                try:
                    await self.run_once()
                    self._fault = ""
                except TickbirdError as error:
                    await self._after_fault(error)
                except Exception as error:  # the loop may end only by shutdown
                    logger.exception("fetch_failed queue=%s", self.queue.label)
                    await self._after_fault(error)

    async def _after_fault(self, error: Exception) -> None:
        """Say a fault once, and wait a little before the next try."""
        if str(error) != self._fault:
            self._fault = str(error)
            logger.warning("fetch_refused queue=%s error=%s", self.queue.label, error)
        await self._pause(_PAUSE_AFTER_FAULT_S)

    async def run_once(self) -> None:
        """One call, or one wait for a reason to call."""
        self._wake.clear()
        ended = self._next_ended()
        wanted = 0
        if self._is_hungry and not self._stopping.is_set():
            wanted = self._slots.take(self._wake_up)
        if not ended and not wanted:
            await self._wake.wait()
            return
        unused = wanted
        try:
            taken = await self._call(ended, wanted)
            unused = wanted - len(taken)
            if unused:
                self._is_hungry = False
                self._idle.set()
            self._start(taken)
        except BaseException:
            self._ended.extendleft(reversed(ended))
            raise
        finally:
            self._slots.release(unused)

    def _token(self) -> bytes:
        """One token per call: whoever lost a job and takes it again holds another one."""
        return f"tb:{self._settings.worker_id}:{self._lane.number}:{self._lane.seq}".encode()

    async def _call(self, ended: list[tuple[Attempt, EndedAttempt]], wanted: int) -> list[TakenJob]:
        settings = self._settings
        self._lane.begin()
        token = self._token()
        sent_s = self._clock.monotonic_s()
        codes, taken, now_ms, limited_ms, next_due_ms, fault = await self._lane.send(
            "finish_and_take",
            msgspec.msgpack.encode([attempt for _, attempt in ended]),
            wanted,
            token,
            settings.message,
            0 if self._suspects else 1,
            deadline_s=None,
        )
        self.looked_at_s = self._clock.monotonic_s()
        for (attempt, _), code in zip(ended, codes, strict=True):
            self._settle(attempt, code)
        jobs = [taken_job(job_id, fields, token, now_ms) for job_id, fields in taken]
        for job in jobs:
            self._hold(job, sent_s)
        if fault:
            logger.error("take_failed queue=%s error=%r", self.queue.label, fault)
        self._plan_next_look(limited_ms or (float(next_due_ms) - now_ms if next_due_ms else 0))
        return jobs

    def _settle(self, attempt: Attempt, code: Any) -> None:
        """Note the server's answer to an ended attempt; one it refuses may end in another way."""
        job = attempt.job
        again = None if code == DONE else attempt.refuse(code)
        if again is not None:
            self._ended.append((attempt, again))
            return
        self._keeper.release(job.id, job.token)
        if code != DONE:
            logger.warning(
                "outcome_refused queue=%s job_id=%s code=%r",
                self.queue.label,
                job.id.decode(errors="replace"),
                code,
            )

    def _plan_next_look(self, after_ms: float) -> None:
        """Look again when a rate limit ends or a delayed job is due, if no marker says so first."""
        if self._look_again is not None:
            self._look_again.cancel()
            self._look_again = None
        if 0 < after_ms < IDLE_POLL_S * 1_000:
            loop = asyncio.get_running_loop()
            self._look_again = loop.call_later(after_ms / 1_000, self._become_hungry)

    def _become_hungry(self) -> None:
        self._is_hungry = True
        self._idle.clear()
        self._wake.set()

    def _hold(self, job: TakenJob, sent_s: float) -> None:
        attempt = self._make_attempt(job)
        self.running[job.token + job.id] = attempt
        loop = asyncio.get_running_loop()

        def on_lost(reason: str) -> None:
            loop.call_soon_threadsafe(attempt.lose_lock, reason)

        self._keeper.hold(self.queue, job.id, job.token, since_s=sent_s, on_lost=on_lost)

    def _start(self, jobs: list[TakenJob]) -> None:
        for job in jobs:
            if job.stalls >= _SUSPECT_STALLS:
                self._suspects.add(job.token + job.id)
            task = asyncio.create_task(self._run_attempt(self.running[job.token + job.id]))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _run_attempt(self, attempt: Attempt) -> None:
        job = attempt.job
        try:
            ended = await attempt.run()
            if ended is None:
                self._keeper.release(job.id, job.token)
            else:
                self._ended.append((attempt, ended))
        finally:
            self.running.pop(job.token + job.id, None)
            self._suspects.discard(job.token + job.id)
            self._slots.release(1)
            self._become_hungry()

    def _next_ended(self) -> list[tuple[Attempt, EndedAttempt]]:
        """What the next call hands in: at most 500 outcomes, and 1 MB of results or one job."""
        batch: list[tuple[Attempt, EndedAttempt]] = []
        size_bytes = 0
        while self._ended and len(batch) < _ENDED_PER_CALL:
            size_bytes += self._ended[0][1].size_bytes
            if batch and size_bytes > _ENDED_BYTES_PER_CALL:
                break
            batch.append(self._ended.popleft())
        return batch

    async def _listen(self) -> None:
        """Wait for the marker while idle, on a connection of its own; each second look anyway.

        Only an idle worker listens: the marker it pops is a wake-up that no peer gets.
        """
        name = self._keys.client_name(f"tb-{self._settings.worker_id[:12]}")
        client = self._connection.blocking_client(name, IDLE_POLL_S)
        try:
            while not self._stopping.is_set():
                await self._idle.wait()
                await self._slots.available.wait()
                if self._stopping.is_set():
                    return
                await self._await_marker(client)
                self._become_hungry()
        finally:
            await client.aclose()
            await client.connection_pool.disconnect()

    async def _await_marker(self, client: Any) -> None:
        """Wait for a wake-up, at most a second, or until the worker stops."""
        popping = asyncio.ensure_future(
            client.bzpopmin(self._keys.of("marker"), timeout=IDLE_POLL_S)
        )
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait({popping, stopping}, return_when=asyncio.FIRST_COMPLETED)
        finally:  # whatever ends the wait, no call is left behind on the connection
            stopping.cancel()
            popping.cancel()
            outcomes = await asyncio.gather(popping, return_exceptions=True)
        outcome = outcomes[0]
        if isinstance(outcome, RedisError | OSError):
            logger.debug("marker_unanswered queue=%s error=%s", self.queue.label, outcome)
            await self._pause(_PAUSE_AFTER_FAULT_S)
        if self._stopping.is_set():
            await self._pass_marker_on()

    async def _pass_marker_on(self) -> None:
        """Leave a wake-up for an idle peer: ours may have been popped and never used."""
        try:
            await self._connection.reader.zadd(self._keys.of("marker"), {"0": 0})
        except (RedisError, OSError) as error:
            logger.debug("marker_not_passed_on queue=%s error=%s", self.queue.label, error)

    async def _pause(self, seconds: float) -> None:
        """Sleep, or wake at once when the worker stops."""
        try:
            await asyncio.wait_for(self._stopping.wait(), seconds)
        except TimeoutError:
            return
