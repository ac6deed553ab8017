"""The slots of one worker, shared by its queues in turn."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Slots:
    """Counts what is free; who found nothing free is told when that changes, in turn."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.free = total
        self.available = asyncio.Event()
        """Set while a slot is free."""
        self.available.set()
        self._waiting: dict[Callable[[], None], None] = {}

    def take(self, wake: Callable[[], None]) -> int:
        """All that are free now, to be given back by `release`; 0 queues `wake` for its turn."""
        taken, self.free = self.free, 0
        self.available.clear()
        if taken:
            self._waiting.pop(wake, None)
        else:
            self._waiting[wake] = None
        return taken

    def release(self, count: int) -> None:
        """Give slots back; all who wait are told in the order in which they began to wait."""
        if count == 0:
            return
        self.free += count
        self.available.set()
        for wake in list(self._waiting):
            wake()
