"""A browser tab that is watched: console, content policy, requests to other hosts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import ConsoleMessage, Page

SCREENSHOTS = Path(__file__).parent.parent / "screenshots"


@dataclass
class Tab:
    """A page that is watched: console, policy, requests to other hosts."""

    page: Page
    base: str
    complaints: list[str] = field(default_factory=list)

    def open(self, path: str) -> Page:
        self.page.goto(f"{self.base}{path}", wait_until="load")
        self.page.wait_for_selector("main > *")
        return self.page

    def shoot(self, name: str) -> None:
        SCREENSHOTS.mkdir(exist_ok=True)
        self.page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=True)

    def watch(self) -> None:
        def console(message: ConsoleMessage) -> None:
            if message.type in ("error", "warning"):
                self.complaints.append(f"{message.type}: {message.text}")

        def request(asked: Any) -> None:
            parts = urlsplit(asked.url)
            if parts.scheme not in ("data", "blob") and parts.netloc != urlsplit(self.base).netloc:
                self.complaints.append(f"request to {asked.url}")

        self.page.on("console", console)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", request)


OpenTab = Callable[..., Tab]
