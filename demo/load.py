"""The load generator: customers who order over HTTP, as a scenario has it.

`python -m demo.load --scenario tour --url http://127.0.0.1:8080` plays the scenario,
then keeps a gentle load until Ctrl-C (or ends, with --once). Rates and totals are bounded.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import signal
import sys
import uuid
from collections import deque
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING

import httpx

from demo.receivers import UNKNOWN_MAILBOXES, Mode
from demo.scenarios import GENTLE_ORDERS_PER_S, MOST_ORDERS, MOST_ORDERS_PER_S, SCENARIOS
from demo.shop import PRICES_CENTS
from tickbird import Inspector, JobState, Queue, QueueRef, TickbirdError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from demo.scenarios import Phase, Scenario

WEBHOOKS = QueueRef("webhooks")

_MOST_AT_ONCE = 50
_SHOP_READY_WITHIN_S = 60.0
_REPORT_EVERY_S = 5.0
_MOST_MAKING_UP_S = 1.0
_REPLAY_AT_ONCE = 200
_MOST_REPLAY_ROUNDS = 50


class Customers:
    """Place orders, each under a key of its own, and remember how the shop answered."""

    def __init__(self, shop: httpx.AsyncClient) -> None:
        self._shop = shop
        self._free = asyncio.Semaphore(_MOST_AT_ONCE)
        self._answered_after_s: deque[float] = deque(maxlen=500)
        self.asked = 0
        """How many orders have begun; each ends as one of these two."""
        self.placed = 0
        self.turned_away = 0

    @property
    def answer_p95_ms(self) -> float:
        """Of the last 500 orders: how long customers waited for the 202."""
        times_s = sorted(self._answered_after_s) or [0.0]
        return times_s[int(len(times_s) * 0.95)] * 1_000

    async def come(self, orders_per_s: float, for_s: float) -> None:
        """Place orders at that rate (at most 100 a second, 50 at once) for so long.

        When the shop answers slowly, fewer come: what more than a second is lost is not made up for.
        """
        rate = min(orders_per_s, MOST_ORDERS_PER_S)
        due_s = monotonic()
        end_s = due_s + for_s
        async with asyncio.TaskGroup() as orders:
            for _ in range(min(round(for_s * rate), MOST_ORDERS - self.asked)):
                await asyncio.sleep(due_s - monotonic())
                await self._free.acquire()
                if monotonic() > end_s:
                    self._free.release()
                    break
                self.asked += 1
                orders.create_task(self._order())
                due_s = max(due_s + 1 / rate, monotonic() - _MOST_MAKING_UP_S)
            await asyncio.sleep(end_s - monotonic())

    async def _order(self) -> None:
        try:
            key = str(uuid.uuid4())
            order = _some_order()
            if await self._post(key, order) or await self._post(key, order):
                self.placed += 1
            else:
                self.turned_away += 1
        finally:
            self._free.release()

    async def _post(self, key: str, order: dict[str, object]) -> bool:
        """Whether the shop took the order; under one key it may be asked again."""
        begun_s = monotonic()
        try:
            answer = await self._shop.post("/orders", json=order, headers={"Idempotency-Key": key})
        except httpx.HTTPError:
            return False
        self._answered_after_s.append(monotonic() - begun_s)
        return answer.status_code == httpx.codes.ACCEPTED


class Stage:
    """Play scenarios: tell the warehouse its mood, send the customers, say what goes on."""

    def __init__(
        self, customers: Customers, receivers: httpx.AsyncClient, redis_url: str | None
    ) -> None:
        self._customers = customers
        self._receivers = receivers
        self._redis_url = redis_url
        self._inspector = Inspector(redis_url)
        self._begun_s = monotonic()
        self._length = ""

    async def play(self, scenario: Scenario) -> None:
        """All phases of a scenario, one after the other; the warehouse is well afterwards."""
        self._begun_s = monotonic()
        self._length = f" of {_minutes(scenario.duration_s)}"
        try:
            for phase in scenario.phases:
                await self._play_phase(phase)
        finally:
            with suppress(httpx.HTTPError):  # when all ends, the warehouse may be gone already
                await self._set_warehouse(Mode.OK)
        self._length = ""
        self._say("that was all")

    async def play_gently(self) -> None:
        """A gentle load for ever, or until the run has placed its 20,000 orders."""
        self._say("from now on one order a second, until Ctrl-C")
        while self._customers.asked < MOST_ORDERS:
            await self._customers.come(GENTLE_ORDERS_PER_S, for_s=60)
        self._say(f"{MOST_ORDERS:,} orders are enough")

    async def aclose(self) -> None:
        """Close the connection to Redis."""
        await self._inspector.aclose()

    async def _play_phase(self, phase: Phase) -> None:
        self._say(f"{phase.name.upper()}: {phase.says}")
        self._say(f"  on the page: {phase.look}")
        await self._set_warehouse(phase.warehouse)
        if phase.replays:
            await self._replay_dead_letters()
        async with asyncio.TaskGroup() as both:
            reports = both.create_task(self._report())
            await self._customers.come(phase.orders_per_s, phase.duration_s)
            reports.cancel()

    async def _report(self) -> None:
        while True:
            await asyncio.sleep(_REPORT_EVERY_S)
            customers = self._customers
            away = f", {customers.turned_away} turned away" if customers.turned_away else ""
            self._say(
                f"  {customers.placed} orders{away}, answered within {customers.answer_p95_ms:.0f} ms"
                f" (p95); {await self._webhooks_now()}"
            )

    async def _webhooks_now(self) -> str:
        try:
            (sample,) = await self._inspector.sample([WEBHOOKS])
        except TickbirdError as error:
            return f"queue unknown: {error}"
        counts = sample.counts
        return (
            f"webhooks: depth {sample.depth}, {counts[JobState.DELAYED]} waiting for their next "
            f"attempt, {counts[JobState.FAILED]} dead letters"
        )

    async def _set_warehouse(self, mode: Mode) -> None:
        (await self._receivers.post("/mode", json={"mode": mode})).raise_for_status()

    async def _replay_dead_letters(self) -> None:
        queue = Queue(WEBHOOKS.name, redis=self._redis_url)
        replayed = 0
        try:
            for _ in range(_MOST_REPLAY_ROUNDS):
                dead = await self._inspector.list_jobs(
                    WEBHOOKS, JobState.FAILED, limit=_REPLAY_AT_ONCE
                )
                if not dead:
                    break
                replayed += sum(await queue.replay([job.id for job in dead]))
        finally:
            await queue.aclose()
        self._say(
            f"  replayed {replayed} dead letters of webhooks"
            if replayed
            else "  no dead letters left: you have replayed them"
        )

    def _say(self, text: str) -> None:
        print(f"[{_minutes(monotonic() - self._begun_s)}{self._length}] {text}", flush=True)


def _some_order() -> dict[str, object]:
    mistyped = random.random() < 0.005  # noqa: PLR2004 - one customer in 200
    return {
        "email": f"customer{random.randrange(1_000)}"
        + (UNKNOWN_MAILBOXES if mistyped else "@mail.example"),
        "product": random.choice(tuple(PRICES_CENTS)),
        "quantity": random.randint(1, 3),
        "express": random.random() < 0.1,  # noqa: PLR2004 - one in ten
    }


def _minutes(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"


async def _wait_for_shop(shop: httpx.AsyncClient) -> bool:
    end_s = monotonic() + _SHOP_READY_WITHIN_S
    while monotonic() < end_s:
        with suppress(httpx.HTTPError):
            await shop.get("/orders/none")
            return True
        await asyncio.sleep(0.2)
    return False


async def run(
    scenario: Scenario, *, url: str, receivers_url: str, redis_url: str | None, once: bool
) -> int:
    """Play a scenario against a shop; the exit code."""
    async with (
        httpx.AsyncClient(base_url=url, timeout=10) as shop,
        httpx.AsyncClient(base_url=receivers_url, timeout=10) as receivers,
    ):
        if not await _wait_for_shop(shop):
            print(f"no shop answers at {url}", file=sys.stderr)
            return 1
        stage = Stage(Customers(shop), receivers, redis_url)
        try:
            await stage.play(scenario)
            if not once:
                await stage.play_gently()
        finally:
            await stage.aclose()
    return 0


async def _run_until_signal(options: argparse.Namespace) -> int:
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 - a coroutine that runs has one
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    try:
        return await run(
            SCENARIOS[options.scenario],
            url=options.url,
            receivers_url=options.receivers_url,
            redis_url=options.redis_url,
            once=options.once,
        )
    except asyncio.CancelledError:
        return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Play a scenario; ends with 0 on SIGTERM or Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m demo.load", description=__doc__)
    parser.add_argument("--scenario", choices=SCENARIOS, default="tour")
    parser.add_argument(
        "--url", default="http://127.0.0.1:8080", help="the shop (default: %(default)s)"
    )
    parser.add_argument(
        "--receivers-url",
        default="http://127.0.0.1:2580",
        help="the warehouse, to set its mood (default: %(default)s)",
    )
    parser.add_argument(
        "--redis-url",
        default=os.environ.get("TICKBIRD_REDIS_URL"),
        help="to report depth and replay dead letters (default: TICKBIRD_REDIS_URL)",
    )
    parser.add_argument("--once", action="store_true", help="end after the scenario")
    return asyncio.run(_run_until_signal(parser.parse_args(arguments)))


if __name__ == "__main__":
    sys.exit(main())
