"""A worker's word each second: what it is and what runs, for people; and whom it is to cancel.

The entry is gone 30 s after the last word.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Sequence

import msgspec

from tickbird.clock import Clock, SystemClock
from tickbird.fetch import FetchLoop
from tickbird.inspector import WORKER_TTL_S
from tickbird.slots import Slots
from tickbird.storage.connection import Connection
from tickbird.storage.keys import QUEUES, QueueKeys

INTERVAL_S = 1.0
_MAX_RUNNING = 100


class Heartbeat:
    """Writes one hash per queue, so that each is beside the queue it is about."""

    def __init__(
        self,
        connection: Connection,
        worker_id: str,
        version: str,
        loops: Sequence[FetchLoop],
        slots: Slots,
        *,
        is_stopping: Callable[[], bool],
        clock: Clock | None = None,
    ) -> None:
        self._connection = connection
        self._worker_id = worker_id
        self._loops = loops
        self._is_stopping = is_stopping
        self._clock = clock or SystemClock()
        self._constant = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "version": version,
            "started_at_ms": self._clock.now_ms(),
            "queues": msgspec.json.encode([loop.queue.name for loop in loops]),
            "concurrency": slots.total,
        }

    async def run_once(self) -> None:
        """Say who we are and what runs now, on each queue."""
        pipe = self._connection.reader.pipeline(transaction=False)
        seconds, micros = await self._connection.reader.time()
        now_ms = seconds * 1_000 + micros // 1_000  # the server's clock: readers compare with it
        for loop in self._loops:
            keys = QueueKeys(loop.queue)
            key = keys.worker(self._worker_id)
            running = [
                (attempt.job.id.decode(errors="replace"), attempt.job.name, attempt.job.taken_at_ms)
                for attempt in list(loop.running.values())[:_MAX_RUNNING]
            ]
            fields = {
                **self._constant,
                "seen_at_ms": now_ms,
                # Not the slots' own count: a call in flight holds the slots it may fill.
                "busy": sum(len(each.running) for each in self._loops),
                "stopping": int(self._is_stopping()),
                "running": msgspec.json.encode(
                    [(i, n.encode(errors="replace").decode(), at) for i, n, at in running]
                ),
            }
            pipe.hset(key, mapping=fields)
            pipe.expire(key, WORKER_TTL_S)
            pipe.zadd(keys.workers, {self._worker_id: now_ms})
            pipe.zremrangebyscore(keys.workers, "-inf", now_ms - WORKER_TTL_S * 1_000)
            pipe.expire(keys.workers, WORKER_TTL_S)
            pipe.hsetnx(keys.of("meta"), "opts.maxLenEvents", 10_000)
            pipe.sadd(QUEUES, keys.prefix[:-1])
        for loop in self._loops:
            pipe.hgetall(QueueKeys(loop.queue).cancel)
        replies = await pipe.execute()
        for loop, asked in zip(self._loops, replies[-len(self._loops) :], strict=True):
            await self._cancel(loop, asked)

    async def _cancel(self, loop: FetchLoop, asked: dict[bytes, bytes]) -> None:
        """Stop the attempts of ours that somebody has cancelled."""
        for job_id, token_and_reason in asked.items():
            token, _, reason = token_and_reason.partition(b"|")
            attempt = loop.find(job_id, token)
            if attempt is None:
                continue
            attempt.cancel(reason.decode(errors="replace"))
            await self._connection.reader.hdel(QueueKeys(loop.queue).cancel, job_id)

    async def say_goodbye(self) -> None:
        """Take the worker off the list now, not when its word runs out."""
        pipe = self._connection.reader.pipeline(transaction=False)
        for loop in self._loops:
            keys = QueueKeys(loop.queue)
            pipe.unlink(keys.worker(self._worker_id))
            pipe.zrem(keys.workers, self._worker_id)
        await pipe.execute()
