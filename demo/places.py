"""Where the shop's work goes: the mail server, the warehouse's webhook, the folder for files."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Read from the environment of the worker, so that each deployment has its own."""

    smtp_host: str
    smtp_port: int
    webhook_url: str
    files: Path

    @classmethod
    def from_environment(cls) -> Places:
        """Read `SHOP_SMTP` (host:port), `SHOP_WEBHOOK_URL` and `SHOP_FILES`; defaults are local."""
        host, _, port = os.environ.get("SHOP_SMTP", "127.0.0.1:2525").rpartition(":")
        return cls(
            smtp_host=host,
            smtp_port=int(port),
            webhook_url=os.environ.get("SHOP_WEBHOOK_URL", "http://127.0.0.1:2580/webhooks"),
            files=Path(os.environ.get("SHOP_FILES", ".demo/files")),
        )
