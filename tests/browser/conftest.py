"""A real browser against a real dashboard with a real worker. Screenshots go to tests/screenshots/."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Playwright

from tests.browser.tab import OpenTab, Tab
from tests.conftest import missing
from tickbird.embedded import EmbeddedServer

ROOT = Path(__file__).parents[2]

ARGS = [
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
# Reports what the CSP refused as an error of the console, where the tests look anyway.
WATCH = """document.addEventListener('securitypolicyviolation', e =>
  console.error('CSP ' + e.violatedDirective + ' ' + e.blockedURI + ' ' + e.sourceFile))"""


@pytest.fixture(scope="session")
def chromium(playwright: Playwright) -> Iterator[Browser]:
    program = os.environ.get("BROWSER_EXECUTABLE") or shutil.which("chromium")
    if program is None:
        missing("Chromium is not installed: apt-get install chromium, or set BROWSER_EXECUTABLE")
    browser = playwright.chromium.launch(executable_path=program, chromium_sandbox=False, args=ARGS)
    yield browser
    browser.close()


@pytest.fixture(scope="session")
def axe() -> str:
    """The source of axe-core."""
    places = (os.environ.get("AXE_JS"), "node_modules/axe-core/axe.min.js")
    for place in places:
        if place and (ROOT / place).is_file():
            return (ROOT / place).read_text()
    missing("axe-core is not installed: npm install axe-core, or set AXE_JS to axe.min.js")
    raise AssertionError


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """A Redis of this module alone: what the overview shows is what the module made."""
    with EmbeddedServer() as running:
        yield running.url


@pytest.fixture(scope="module")
def dashboard_url(server: str) -> Iterator[str]:
    code = "from tickbird.cli import main; raise SystemExit(main())"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "dashboard", "--port", "0", "--redis-url", server],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    address = process.stdout.readline().strip()
    assert address.startswith("http://127.0.0.1:")
    yield address.rstrip("/")
    process.terminate()
    process.communicate(timeout=10)


@pytest.fixture
def worker(server: str) -> Iterator[subprocess.Popen[str]]:
    """A worker of the shop's app."""
    code = "from tickbird.cli import main; raise SystemExit(main())"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "worker", "tests.browser.shop:app", "--concurrency", "4"],
        cwd=ROOT,
        env={**os.environ, "TICKBIRD_REDIS_URL": server},
        text=True,
    )
    yield process
    process.terminate()
    process.communicate(timeout=30)


@pytest.fixture
def open_tab(chromium: Browser, dashboard_url: str) -> Iterator[OpenTab]:
    """Tabs of any width and colour scheme; at the end none may have complained."""
    contexts: list[BrowserContext] = []
    tabs: list[Tab] = []

    def opened(width: int = 1_440, scheme: Any = "light", **options: Any) -> Tab:
        context = chromium.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, **options
        )
        contexts.append(context)
        context.add_init_script(WATCH)
        tab = Tab(context.new_page(), dashboard_url)
        tab.page.set_default_timeout(15_000)
        tab.watch()
        tabs.append(tab)
        return tab

    yield opened
    for context in contexts:
        context.close()
    assert [complaint for tab in tabs for complaint in tab.complaints] == []
