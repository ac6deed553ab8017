"""Run something again and again until told to stop, whatever it raises."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable

logger = logging.getLogger(__name__)

_JITTER = 0.1


async def run_every(
    interval_s: float, run_once: Callable[[], Awaitable[None]], *, stop: asyncio.Event
) -> None:
    """Call `run_once` each `interval_s`, give or take a tenth, until `stop` is set.

    What it raises is logged once per kind in a row and never ends the loop: a maintenance
    loop that a passing fault can end is how jobs get stuck for ever.
    """
    last_failure = ""
    while not stop.is_set():
        try:
            await run_once()
            last_failure = ""
        except Exception as error:  # noqa: BLE001 - see the docstring
            failure = f"{type(error).__name__}: {error}"
            if failure != last_failure:
                logger.warning("periodic_failed name=%s error=%s", run_once.__qualname__, failure)
            last_failure = failure
        pause_s = interval_s * random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311 - spreads load
        try:
            await asyncio.wait_for(stop.wait(), pause_s)
        except TimeoutError:
            continue
