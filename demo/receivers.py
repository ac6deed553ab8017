"""The world outside the shop: the warehouse's webhook receiver and the customers' mailboxes.

Both forget nothing they promised: a webhook's Idempotency-Key and a mail's Message-ID
take effect once, however often they come. `python -m demo.receivers` runs them;
`POST /mode` makes the warehouse slow, failing or silent.
"""

from __future__ import annotations

import argparse
import asyncio
from contextlib import asynccontextmanager
from email.parser import BytesHeaderParser
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import msgspec
from aiosmtpd.smtp import SMTP, Envelope, Session
from litestar import Litestar, Response, get, post
from litestar.datastructures import State
from litestar.params import HeaderParameter, JSONBody

from demo.web import LOGGING, serve

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

UNKNOWN_MAILBOXES = "@nowhere.example"
"""Mail to this domain is refused for good, as for a mistyped address."""

_SLOW_S = 0.7
_HANG_S = 30.0
_MOST_REMEMBERED = 50_000
_MOST_BYTES = 64 * 1024


class Mode(StrEnum):
    """How the warehouse answers."""

    OK = "ok"
    SLOW = "slow"
    FAIL = "fail"
    HANG = "hang"


class Effects:
    """Which keys have taken effect; the oldest of 50,000 are forgotten."""

    def __init__(self) -> None:
        self._keys: dict[str, None] = {}
        self.repeats = 0

    def __len__(self) -> int:
        return len(self._keys)

    def take(self, key: str) -> bool:
        """Whether the key is new, and so has its effect now."""
        if key in self._keys:
            self.repeats += 1
            return False
        if len(self._keys) >= _MOST_REMEMBERED:
            del self._keys[next(iter(self._keys))]
        self._keys[key] = None
        return True


class Mailboxes:
    """What the mail server does with a mail (the hooks of aiosmtpd)."""

    def __init__(self) -> None:
        self.mails = Effects()

    async def handle_RCPT(  # noqa: N802 - aiosmtpd's name
        self,
        server: SMTP,  # noqa: ARG002
        session: Session,  # noqa: ARG002
        envelope: Envelope,
        address: str,
        options: list[str],  # noqa: ARG002
    ) -> str:
        """Accept a recipient, unless there is no such mailbox."""
        if address.endswith(UNKNOWN_MAILBOXES):
            return "550 no such mailbox"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(  # noqa: N802 - aiosmtpd's name
        self,
        server: SMTP,  # noqa: ARG002
        session: Session,  # noqa: ARG002
        envelope: Envelope,
    ) -> str:
        """Deliver a mail, once per Message-ID."""
        content = envelope.content
        raw = content if isinstance(content, bytes) else (content or "").encode()
        self.mails.take(BytesHeaderParser().parsebytes(raw)["Message-ID"] or "")
        return "250 delivered"


class Warehouse:
    """Its present mode and the orders it has taken."""

    def __init__(self) -> None:
        self.mode = Mode.OK
        self.orders = Effects()


class NewMode(msgspec.Struct):
    """The body of `POST /mode`."""

    mode: Mode


class Received(msgspec.Struct):
    """What has arrived so far: distinct effects, and repeats that had none."""

    mode: Mode
    orders: int
    order_repeats: int
    mails: int
    mail_repeats: int


@post("/webhooks", status_code=200)
async def take_order(
    state: State, key: Annotated[str, HeaderParameter(name="Idempotency-Key", max_length=200)]
) -> Response[dict[str, bool] | dict[str, str]]:
    """Pack an order, once per key; badly while the mode says so."""
    warehouse: Warehouse = state.warehouse
    match warehouse.mode:
        case Mode.FAIL:
            return Response({"error": "the warehouse is closed"}, status_code=503)
        case Mode.HANG:
            await asyncio.sleep(_HANG_S)
            return Response({"error": "the warehouse fell asleep"}, status_code=503)
        case Mode.SLOW:
            await asyncio.sleep(_SLOW_S)
        case Mode.OK:
            pass
    return Response({"packed": warehouse.orders.take(key)})


@post("/mode", status_code=200)
async def set_mode(state: State, data: JSONBody[NewMode]) -> NewMode:
    """Make the warehouse answer well, slowly, with errors or not at all, from now on."""
    state.warehouse.mode = data.mode
    return data


@get("/received")
async def received(state: State) -> Received:
    """Count what has taken effect."""
    orders, mails = state.warehouse.orders, state.mailboxes.mails
    return Received(
        mode=state.warehouse.mode,
        orders=len(orders),
        order_repeats=orders.repeats,
        mails=len(mails),
        mail_repeats=mails.repeats,
    )


def create_receivers(smtp_host: str, smtp_port: int) -> Litestar:
    """The warehouse as an HTTP app; the mail server runs as long as it does."""
    mailboxes = Mailboxes()

    @asynccontextmanager
    async def mail_server(_: Litestar) -> AsyncIterator[None]:
        server = await asyncio.get_running_loop().create_server(
            lambda: SMTP(mailboxes, data_size_limit=_MOST_BYTES, enable_SMTPUTF8=True),
            smtp_host,
            smtp_port,
        )
        async with server:
            yield

    return Litestar(
        [take_order, set_mode, received],
        state=State({"warehouse": Warehouse(), "mailboxes": mailboxes}),
        lifespan=[mail_server],
        request_max_body_size=_MOST_BYTES,
        openapi_config=None,
        logging_config=LOGGING,
    )


def main() -> None:
    """Run both servers until SIGTERM or Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m demo.receivers", description=__doc__)
    parser.add_argument(
        "--host", default="127.0.0.1", help="address of both (default: %(default)s)"
    )
    parser.add_argument("--port", type=int, default=2580, help="HTTP (default: %(default)s)")
    parser.add_argument("--smtp-port", type=int, default=2525, help="SMTP (default: %(default)s)")
    options = parser.parse_args()
    serve(create_receivers(options.host, options.smtp_port), options.host, options.port)


if __name__ == "__main__":
    main()
