"""The shop's API: takes an order, answers at once, and leaves the slow work to the tasks.

POST /orders        202 with a status address, whatever the tasks are doing
GET  /orders/{id}   where the order's jobs are

`python -m demo.shop` runs it.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import secrets
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
from litestar import Litestar, Request, Response, get, post
from litestar.exceptions import NotFoundException
from litestar.params import FromPath, HeaderParameter, JSONBody

from demo import tasks
from demo.web import LOGGING, serve
from tickbird import JobState, QueueRef, TickbirdError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

Product = Literal["teapot", "kettle", "cup", "tea strainer", "honey", "biscuits"]
PRICES_CENTS: dict[Product, int] = {
    "teapot": 3_900,
    "kettle": 5_450,
    "cup": 890,
    "tea strainer": 640,
    "honey": 720,
    "biscuits": 450,
}

ORDER_JOBS = {
    "mail": QueueRef("mail"),
    "invoice": QueueRef("invoices"),
    "warehouse": QueueRef("webhooks"),
    "card": QueueRef("media"),
}
"""What is done for an order; a job's id is `<kind>-<order>`."""


class NewOrder(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `POST /orders`."""

    email: Annotated[str, msgspec.Meta(pattern=r"^[^\s@<>]+@[^\s@<>]+$", max_length=100)]
    product: Product
    quantity: Annotated[int, msgspec.Meta(ge=1, le=20)] = 1
    express: bool = False


class Accepted(msgspec.Struct):
    """The answer to an order: who it is, and the ids of the jobs that work on it."""

    order: str
    status: str
    jobs: dict[str, str]


class OrderJob(msgspec.Struct):
    """Where one job of an order is."""

    id: str
    queue: str
    state: JobState
    attempts_made: int
    error: str | None


class OrderStatus(msgspec.Struct):
    """Where an order is: `done` when all its jobs are, `needs_attention` when one has failed."""

    order: str
    progress: Literal["in_progress", "done", "needs_attention"]
    jobs: dict[str, OrderJob]


@post("/orders", status_code=202)
async def place_order(
    data: JSONBody[NewOrder],
    key: Annotated[str | None, HeaderParameter(name="Idempotency-Key", max_length=200)] = None,
) -> Response[Accepted]:
    """Take an order.

    Customers who repeat a request under the same Idempotency-Key get the same order: its
    job ids are the same, and a job id is added once.
    """
    order = _order_id(key)
    to, product, quantity = data.email, data.product, data.quantity
    urgent = 1 if data.express else 0
    ids = {kind: f"{kind}-{order}" for kind in ORDER_JOBS}

    await asyncio.gather(
        tasks.confirm_order.options(job_id=ids["mail"]).delay(order, to, product),
        tasks.write_invoice.options(job_id=ids["invoice"]).delay(
            order, product, quantity, PRICES_CENTS[product]
        ),
        tasks.tell_warehouse.options(job_id=ids["warehouse"], priority=urgent).delay(
            order, product, quantity
        ),
        tasks.draw_gift_card.options(job_id=ids["card"]).delay(order, product),
    )

    status = f"/orders/{order}"
    return Response(Accepted(order, status, ids), headers={"Location": status})


@get("/orders/{order:str}")
async def show_order(order: FromPath[str]) -> OrderStatus:
    """Say where the jobs of an order are."""
    inspector = tasks.app.inspector
    found = await asyncio.gather(
        *(inspector.get_job(queue, f"{kind}-{order}") for kind, queue in ORDER_JOBS.items())
    )
    jobs = {
        kind: OrderJob(job.id, job.queue.name, job.state, job.attempts_made, job.error)
        for kind, job in zip(ORDER_JOBS, found, strict=True)
        if job is not None
    }
    if not jobs:
        raise NotFoundException(f"no order {order}; orders are forgotten with their jobs")
    states = {job.state for job in jobs.values()}
    if JobState.FAILED in states:
        return OrderStatus(order, "needs_attention", jobs)
    return OrderStatus(order, "done" if states == {JobState.COMPLETED} else "in_progress", jobs)


def queue_unavailable(_: Request[Any, Any, Any], error: TickbirdError) -> Response[object]:
    """Ask the customer to come again; the Idempotency-Key makes that safe."""
    return Response({"error": str(error)}, status_code=503, headers={"Retry-After": "1"})


@asynccontextmanager
async def _connections(_: Litestar) -> AsyncIterator[None]:
    yield
    await tasks.app.aclose()


def create_shop() -> Litestar:
    """The API; its orders become jobs on the Redis of the tasks' app."""
    return Litestar(
        [place_order, show_order],
        lifespan=[_connections],
        exception_handlers={TickbirdError: queue_unavailable},
        request_max_body_size=16 * 1024,
        openapi_config=None,
        logging_config=LOGGING,
    )


def _order_id(key: str | None) -> str:
    if key is None:
        return f"o{secrets.token_hex(6)}"
    return f"o{hashlib.sha256(key.encode()).hexdigest()[:12]}"


def main() -> None:
    """Serve the shop until SIGTERM or Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m demo.shop", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="default: %(default)s")
    parser.add_argument("--port", type=int, default=8080, help="default: %(default)s")
    parser.add_argument("--redis-url", help="default: TICKBIRD_REDIS_URL")
    options = parser.parse_args()
    if options.redis_url:
        tasks.app.connect_to(options.redis_url)
    serve(create_shop(), options.host, options.port)


if __name__ == "__main__":
    main()
