from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING

import httpx

from demo.load import Customers

if TYPE_CHECKING:
    import pytest


async def test_each_order_comes_under_a_key_of_its_own() -> None:
    keys: list[str] = []

    def shop(request: httpx.Request) -> httpx.Response:
        keys.append(request.headers["Idempotency-Key"])
        return httpx.Response(202)

    customers = await send_customers(shop, orders_per_s=100, for_s=0.2)

    assert 0 < customers.placed == len(set(keys)) == len(keys)


async def test_a_refused_order_is_repeated_once_under_its_key() -> None:
    asked: Counter[str] = Counter()

    def shop(request: httpx.Request) -> httpx.Response:
        key = request.headers["Idempotency-Key"]
        asked[key] += 1
        if asked[key] == 1:
            raise httpx.ConnectError("reset")
        return httpx.Response(202)

    customers = await send_customers(shop, orders_per_s=50, for_s=0.1)

    assert customers.turned_away == 0
    assert customers.placed == len(asked) > 0
    assert set(asked.values()) == {2}


async def test_customers_who_are_turned_away_are_counted() -> None:
    customers = await send_customers(lambda _: httpx.Response(503), orders_per_s=50, for_s=0.1)

    assert customers.placed == 0
    assert customers.turned_away == customers.asked > 0


async def test_the_total_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("demo.load.MOST_ORDERS", 7)

    customers = await send_customers(lambda _: httpx.Response(202), orders_per_s=100, for_s=0.5)

    assert customers.placed == customers.asked <= 7


async def test_the_rate_is_bounded() -> None:
    customers = await send_customers(lambda _: httpx.Response(202), orders_per_s=10_000, for_s=0.1)

    assert customers.placed <= 10


async def test_customers_wait_while_fifty_are_being_served() -> None:
    most = now = 0

    async def shop(_: httpx.Request) -> httpx.Response:
        nonlocal most, now
        now += 1
        most = max(most, now)
        if most == 50:
            served.set()
        await served.wait()
        now -= 1
        return httpx.Response(202)

    served = asyncio.Event()
    await send_customers(shop, orders_per_s=100, for_s=1)

    assert most == 50


async def send_customers(shop: object, *, orders_per_s: float, for_s: float) -> Customers:
    transport = httpx.MockTransport(shop)  # type: ignore[arg-type]  # a handler, sync or async
    async with httpx.AsyncClient(transport=transport, base_url="http://shop") as client:
        customers = Customers(client)
        await customers.come(orders_per_s, for_s)
    return customers
