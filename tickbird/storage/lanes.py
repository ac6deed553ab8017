"""Writing calls that may be sent again: each lane numbers its calls, the server remembers the last.

A call whose reply is lost is sent again under the same number until a reply comes; the
script then answers from its memo and does nothing twice (lib/lane.lua). A lane has one
call in flight; a lane whose last call was never settled is not used again.
"""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
from typing import Any

from tickbird.clock import Clock, SystemClock
from tickbird.errors import OutcomeUnknown
from tickbird.job import QueueRef
from tickbird.storage import scripts
from tickbird.storage.connection import Connection, NotNow, NotSent, ReplyLost, unavailable
from tickbird.storage.keys import QueueKeys

logger = logging.getLogger(__name__)

_FIRST_PAUSE_S = 0.02
_LONGEST_PAUSE_S = 1.0


class Lane:
    """One sequence of calls to one queue."""

    def __init__(
        self,
        connection: Connection,
        queue: QueueRef,
        client: str,
        number: int,
        clock: Clock | None = None,
    ) -> None:
        self._clock = clock or SystemClock()
        self._connection = connection
        self._keys = QueueKeys(queue)
        self.number = number
        self.memo_key = self._keys.memo(client, number)
        self.seq = 0
        self.settled = True

    def begin(self) -> None:
        """Take the next number: what is sent from now on is a new call."""
        self.seq += 1

    async def send(self, script: str, *args: Any, deadline_s: float | None) -> Any:
        """Run a script under the current number, again and again until it is answered.

        `deadline_s` bounds the whole (None: until answered or cancelled). Raises OutcomeUnknown
        when it passes after the call may have arrived, RedisUnavailable when it cannot have.
        """
        started_s = self._clock.monotonic_s()
        command = (self._keys.prefix, self.memo_key, self.seq, *args)
        may_have_arrived = not self.settled
        self.settled = False
        pause_s = _FIRST_PAUSE_S
        waited = False
        while True:
            try:
                reply = await scripts.run(
                    self._connection.call, script, self._keys.of("meta"), *command
                )
            except (NotSent, NotNow) as error:
                failure: Exception = error
            except ReplyLost as error:
                may_have_arrived = True
                failure = error
            except Exception:
                self.settled = True  # the server has answered: with a refusal
                raise
            else:
                self.settled = True
                if waited:
                    logger.info("redis_answers_again queue=%s", self._keys.queue.label)
                return reply
            if not waited:
                waited = True
                logger.warning(
                    "redis_does_not_answer queue=%s script=%s error=%s",
                    self._keys.queue.label,
                    script,
                    failure,
                )
            if (
                deadline_s is not None
                and self._clock.monotonic_s() - started_s + pause_s > deadline_s
            ):
                if may_have_arrived:
                    raise OutcomeUnknown(
                        f"no reply from Redis within {deadline_s:g} s ({failure}): the call may "
                        "or may not have taken effect; retry() asks again and does nothing twice",
                        lambda: self.send(script, *args, deadline_s=deadline_s),
                    ) from failure
                self.settled = True
                raise unavailable(self._connection.url, failure) from failure
            await asyncio.sleep(pause_s * random.uniform(0.5, 1))  # noqa: S311 - spreads load
            pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)


class Lanes:
    """The lanes of one client of one queue: concurrent calls use one each."""

    def __init__(self, connection: Connection, queue: QueueRef) -> None:
        self._connection = connection
        self._queue = queue
        self._client = secrets.token_hex(16)
        self._count = 0
        self._free: list[Lane] = []

    def open(self) -> Lane:
        """A lane that nobody else uses."""
        self._count += 1
        return Lane(self._connection, self._queue, self._client, self._count)

    async def call(self, script: str, *args: Any, deadline_s: float) -> Any:
        """Run a writing script on a free lane; an unsettled lane is retired."""
        lane = self._free.pop() if self._free else self.open()
        try:
            lane.begin()
            return await lane.send(script, *args, deadline_s=deadline_s)
        finally:
            if lane.settled:
                self._free.append(lane)
