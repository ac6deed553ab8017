from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from litestar.testing import AsyncTestClient

from demo import tasks
from demo.shop import ORDER_JOBS, create_shop
from tickbird import Inspector, JobState, QueueRef

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from litestar import Litestar

ORDER = {"email": "someone@mail.example", "product": "teapot", "quantity": 2}


@pytest.fixture
async def shop(shop_redis_url: str) -> AsyncIterator[AsyncTestClient[Litestar]]:
    tasks.app.connect_to(shop_redis_url)
    async with AsyncTestClient(create_shop()) as client:
        yield client


async def test_an_order_is_accepted_at_once_with_a_status_address(
    shop: AsyncTestClient[Litestar],
) -> None:
    answer = await shop.post("/orders", json=ORDER)

    accepted = answer.json()
    assert answer.status_code == 202
    assert answer.headers["Location"] == accepted["status"] == f"/orders/{accepted['order']}"
    assert accepted["jobs"] == {kind: f"{kind}-{accepted['order']}" for kind in ORDER_JOBS}


async def test_the_status_shows_every_job_of_the_order(shop: AsyncTestClient[Litestar]) -> None:
    accepted = await shop.post("/orders", json=ORDER)

    status = (await shop.get(accepted.headers["Location"])).json()

    assert status["progress"] == "in_progress"
    assert {kind: job["state"] for kind, job in status["jobs"].items()} == dict.fromkeys(
        ORDER_JOBS, "waiting"
    )


async def test_an_express_order_goes_ahead_at_the_warehouse(
    shop: AsyncTestClient[Litestar],
) -> None:
    accepted = await shop.post("/orders", json=ORDER | {"express": True})

    status = (await shop.get(accepted.headers["Location"])).json()

    assert status["jobs"]["warehouse"]["state"] == JobState.PRIORITIZED


async def test_the_same_key_gives_the_same_order_and_no_second_job(
    shop: AsyncTestClient[Litestar], shop_redis_url: str
) -> None:
    first = await shop.post("/orders", json=ORDER, headers={"Idempotency-Key": "once"})
    before = await depth_of_mail(shop_redis_url)

    second = await shop.post("/orders", json=ORDER, headers={"Idempotency-Key": "once"})

    assert second.json() == first.json()
    assert await depth_of_mail(shop_redis_url) == before


async def test_an_unknown_order_is_not_found(shop: AsyncTestClient[Litestar]) -> None:
    assert (await shop.get("/orders/o0")).status_code == 404


@pytest.mark.parametrize(
    "change",
    [
        {"email": "no address"},
        {"email": "a@b.c\r\nBcc: everybody@mail.example"},
        {"product": "car"},
        {"quantity": 0},
        {"quantity": 21},
        {"coupon": "free"},
    ],
    ids=str,
)
async def test_a_bad_order_is_refused(
    shop: AsyncTestClient[Litestar], change: dict[str, Any]
) -> None:
    assert (await shop.post("/orders", json=ORDER | change)).status_code == 400


async def test_without_redis_the_customer_is_asked_to_come_again() -> None:
    tasks.app.connect_to("redis://127.0.0.1:1")
    async with AsyncTestClient(create_shop()) as client:
        answer = await client.get("/orders/o1")

    assert answer.status_code == 503
    assert answer.headers["Retry-After"] == "1"


async def depth_of_mail(redis_url: str) -> int:
    """Read on a connection of this test's loop: the shop runs on another."""
    inspector = Inspector(redis_url)
    try:
        (sample,) = await inspector.sample([QueueRef("mail")])
    finally:
        await inspector.aclose()
    return sample.depth
