"""Periodic care of a queue: bring back the jobs of workers that have gone, whoever's they were."""

from __future__ import annotations

import logging
import random
from typing import Any

from tickbird.clock import Clock, SystemClock
from tickbird.job import QueueRef
from tickbird.storage import scripts
from tickbird.storage.connection import Connection
from tickbird.storage.keys import QueueKeys
from tickbird.storage.wire import text

logger = logging.getLogger(__name__)

DEFAULT_STALL_LIMIT = 3
_JOBS_PER_PASS = 100
_ACTIVE_PER_LOOK = 1_000
_STAND_DOWN_MS = 10_000
"""Workers of other clients leave stalled jobs to us for so long (or two checks) after each check."""
_BETWEEN_LOOKS = 0.8
"""The share of a check's interval that must lie between two looks: ticks come a tenth early."""


class Maintenance:
    """Recovers stalled jobs of one queue; any number of workers may do it side by side.

    After a gap in which its own ticks were late (the server or this process stood still) one
    pass is left out: live workers then renew their locks before anybody is judged.

    `recover_foreign`: also jobs that other clients' workers have left, by our stall limit; their
    own checks stand down meanwhile.
    """

    def __init__(
        self,
        connection: Connection,
        queue: QueueRef,
        *,
        interval_s: float,
        grace_s: float,
        stall_limit: int = DEFAULT_STALL_LIMIT,
        recover_foreign: bool = True,
        clock: Clock | None = None,
    ) -> None:
        self._connection = connection
        self._queue = queue
        self._keys = QueueKeys(queue)
        self._interval_s = interval_s
        self._grace_s = grace_s
        self._stall_limit = stall_limit
        self._recover_foreign = recover_foreign
        self._clock = clock or SystemClock()
        self._last_tick_s: float | None = None
        self._no_pass_before_s = 0.0

    async def run_once(self) -> list[str]:
        """One pass, in steps of 100 jobs; gives the ids that were brought back."""
        if self._is_in_grace():
            return []
        recovered = await self._recover_ours()
        if self._recover_foreign:
            recovered += await self._recover_theirs()
        if recovered:
            logger.warning(
                "stalled_recovered queue=%s count=%d first=%r",
                self._queue.label,
                len(recovered),
                recovered[:10],
            )
        return recovered

    async def _recover_ours(self) -> list[str]:
        """Jobs whose deadline has passed."""
        recovered: list[str] = []
        more = True
        while more:
            ids, more = await self._run(
                "recover_stalled", _JOBS_PER_PASS, self._stall_limit, _seed()
            )
            recovered += map(text, ids)
        return recovered

    async def _recover_theirs(self) -> list[str]:
        """Jobs without a deadline, found without a lock at two looks."""
        interval_ms = self._interval_s * 1_000
        recovered: list[str] = []
        looked = -1
        while True:
            ids, looked = await self._run(
                "recover_foreign",
                looked,
                _ACTIVE_PER_LOOK,
                self._stall_limit,
                _seed(),
                round(interval_ms * _BETWEEN_LOOKS),
                max(round(2 * interval_ms), _STAND_DOWN_MS),
            )
            recovered += map(text, ids)
            if looked < 0:
                return recovered

    async def _run(self, script: str, *args: Any) -> Any:
        meta, prefix = self._keys.of("meta"), self._keys.prefix
        return await scripts.run(self._connection.call, script, meta, prefix, *args)

    def _is_in_grace(self) -> bool:
        now_s = self._clock.monotonic_s()
        last_s, self._last_tick_s = self._last_tick_s, now_s
        if last_s is not None and now_s - last_s > 3 * self._interval_s:
            self._no_pass_before_s = now_s + self._grace_s
        return now_s < self._no_pass_before_s


def _seed() -> int:
    return random.randrange(2**31)  # noqa: S311 - spreads suspects
