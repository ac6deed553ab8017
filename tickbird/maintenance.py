"""Periodic care of a queue: bring back the jobs of workers that have gone."""

from __future__ import annotations

import logging
import random

from tickbird.clock import Clock, SystemClock
from tickbird.job import QueueRef
from tickbird.storage import scripts
from tickbird.storage.connection import Connection
from tickbird.storage.keys import QueueKeys

logger = logging.getLogger(__name__)

DEFAULT_STALL_LIMIT = 3
_JOBS_PER_PASS = 100


class Maintenance:
    """Recovers stalled jobs of one queue; any number of workers may do it side by side.

    After a gap in which its own ticks were late (the server or this process stood still) one
    pass is left out: live workers then renew their locks before anybody is judged.
    """

    def __init__(
        self,
        connection: Connection,
        queue: QueueRef,
        *,
        interval_s: float,
        grace_s: float,
        stall_limit: int = DEFAULT_STALL_LIMIT,
        clock: Clock | None = None,
    ) -> None:
        self._connection = connection
        self._queue = queue
        self._keys = QueueKeys(queue)
        self._interval_s = interval_s
        self._grace_s = grace_s
        self._stall_limit = stall_limit
        self._clock = clock or SystemClock()
        self._last_tick_s: float | None = None
        self._no_pass_before_s = 0.0

    async def run_once(self) -> list[str]:
        """One pass, in steps of 100 jobs; gives the ids that were brought back."""
        if self._is_in_grace():
            return []
        recovered: list[str] = []
        more = True
        while more:
            ids, more = await scripts.run(
                self._connection.call,
                "recover_stalled",
                self._keys.of("meta"),
                self._keys.prefix,
                _JOBS_PER_PASS,
                self._stall_limit,
                random.randrange(2**31),  # noqa: S311 - spreads suspects
            )
            recovered += [job_id.decode(errors="surrogateescape") for job_id in ids]
        if recovered:
            logger.warning(
                "stalled_recovered queue=%s count=%d first=%r",
                self._queue.label,
                len(recovered),
                recovered[:10],
            )
        return recovered

    def _is_in_grace(self) -> bool:
        now_s = self._clock.monotonic_s()
        last_s, self._last_tick_s = self._last_tick_s, now_s
        if last_s is not None and now_s - last_s > 3 * self._interval_s:
            self._no_pass_before_s = now_s + self._grace_s
        return now_s < self._no_pass_before_s
