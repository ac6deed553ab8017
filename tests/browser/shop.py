"""The app whose jobs the browser tests look at; also what their worker loads."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tickbird import App, Retry


def make_app(redis: str | None = None) -> App:
    shop = App("browser", redis=redis)

    @shop.task(queue="mail", name="send_email", retry=Retry(attempts=1))
    async def send_email(to: str, healed: str) -> str:
        if not await asyncio.to_thread(Path(healed).exists):
            raise ConnectionError(f"smtp.example.net refused mail to {to}")
        return f"sent to {to}"

    @shop.task(queue="webhooks", name="deliver_webhook")
    async def deliver_webhook(order: int) -> int:
        return order

    return shop


def heal(marker: Path) -> None:
    """From now on send_email succeeds."""
    marker.touch()


app = make_app()
