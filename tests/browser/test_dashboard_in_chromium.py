"""What a person does with the dashboard, in a real browser."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import redis as redis_client
from playwright.sync_api import Dialog, expect

from tests.browser.shop import heal
from tests.browser.tab import OpenTab, Tab
from tickbird import Queue

pytestmark = pytest.mark.browser

NOW_MS = 1_700_000_000_000
PAGES = ("/", "/queues/mail", "/queues/mail?state=failed", "/dead-letters", "/workers")
RUN_ONLY = ["wcag2a", "wcag2aa", "wcag21aa", "wcag22aa"]
HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "\u202etxt.exe\u0000\u001b[31m",
    "Z\u0310\u0351a\u0330" * 200,
    "wide" * 500,
    '<a hx-get="/" data-hx-post="/queues/mail/pause">',
    "\u200b\u200b\u200b",
)


def on_queue(server: str, name: str, act: Callable[[Queue], Awaitable[Any]]) -> Any:
    """Do something with a queue from outside, as another program would."""

    async def run() -> Any:
        queue = Queue(name, redis=server)
        try:
            return await act(queue)
        finally:
            await queue.aclose()

    with ThreadPoolExecutor(1) as elsewhere:  # Playwright's own loop runs in this thread
        return elsewhere.submit(lambda: asyncio.run(run())).result()


def add_jobs(server: str, name: str, task: str, payloads: list[dict[str, Any]]) -> list[str]:
    jobs = [(task, payload) for payload in payloads]
    handles = on_queue(server, name, lambda queue: queue.add_many(jobs))
    return [handle.id for handle in handles]


def seed_dead_letters(
    server: str, queue: str, count: int, texts: tuple[str, ...] = ("boom",)
) -> None:
    """Failed jobs as any BullMQ client leaves them."""
    client = redis_client.Redis.from_url(server)
    pipe = client.pipeline()
    pipe.hset(f"bull:{queue}:meta", "opts.maxLenEvents", "10000")
    for number in range(count):
        text = texts[number % len(texts)]
        stack = f'Traceback (most recent call last):\n  File "/app/shop.py", line 8, in send\n    smtp()\n{text}'
        pipe.hset(
            f"bull:{queue}:d{number}",
            mapping={
                "name": text if len(texts) > 1 else "send_email",
                "data": json.dumps(
                    {"to": text, "big": 9007199254740993, "nested": {"list": [1, None, True]}}
                ),
                "opts": json.dumps({"attempts": 1}),
                "timestamp": NOW_MS,
                "processedOn": NOW_MS + 5,
                "finishedOn": NOW_MS + 900,
                "failedReason": text,
                "stacktrace": json.dumps([stack]),
                "atm": 1,
            },
        )
        pipe.zadd(f"bull:{queue}:failed", {f"d{number}": NOW_MS + number})
    pipe.execute()
    client.close()


@pytest.fixture(autouse=True)
def clean(server: str) -> None:
    """Each test begins with an empty Redis; the module has one of its own."""
    client = redis_client.Redis.from_url(server)
    client.flushall()
    client.close()


def check_access(tab: Tab, axe: str) -> None:
    """No violation of WCAG A or AA that axe can see."""
    options = json.dumps({"runOnly": RUN_ONLY})
    found = tab.page.evaluate(f"{axe}; axe.run(document, {options})")
    seen = [
        (violation["id"], [node["html"][:200] for node in violation["nodes"]][:3])
        for violation in found["violations"]
    ]
    assert seen == []


@pytest.mark.usefixtures("worker")
def test_the_overview_follows_by_itself(open_tab: OpenTab, server: str) -> None:
    add_jobs(server, "webhooks", "deliver_webhook", [{"order": n} for n in range(5)])
    tab = open_tab()
    page = tab.open("/")
    expect(page.locator("#queues tbody")).to_contain_text("webhooks")
    expect(page.locator("#status")).to_have_text("live")

    add_jobs(server, "reports", "nightly", [{}] * 3)

    expect(page.locator("#queues tbody")).to_contain_text("reports")
    expect(page.locator("#nav")).to_contain_text("Workers 1")


@pytest.mark.usefixtures("worker")
def test_one_click_replays_a_dead_letter_and_it_completes(
    open_tab: OpenTab, server: str, tmp_path: Path
) -> None:
    marker = tmp_path / "healed"
    add_jobs(server, "mail", "send_email", [{"to": "a@example.net", "healed": str(marker)}])
    tab = open_tab()
    page = tab.open("/")
    page.get_by_role("link", name="Dead letters").first.click()
    page.locator("a.job-name").first.click()
    expect(page.locator("#why")).to_contain_text("will not run again by itself")
    expect(page.locator("#attempts")).to_contain_text("smtp.example.net refused")
    tab.shoot("job-failed-wide-light")

    heal(marker)
    page.get_by_role("button", name="Replay").click()

    expect(page.locator("#flash")).to_contain_text("Replayed 1 job")
    expect(page.locator("#state")).to_contain_text("completed")
    expect(page.locator("#result")).to_contain_text("sent to a@example.net")
    tab.shoot("job-replayed-wide-light")


def test_pause_and_resume_in_place(open_tab: OpenTab, server: str) -> None:
    add_jobs(server, "mail", "send_email", [{}] * 2)
    tab = open_tab()
    page = tab.open("/")

    page.get_by_role("button", name="Pause mail").click()
    expect(page.get_by_role("button", name="Resume mail")).to_be_visible()
    expect(page.locator("#flash")).to_contain_text("mail is paused")
    page.get_by_role("button", name="Resume mail").click()

    expect(page.get_by_role("button", name="Pause mail")).to_be_visible()
    assert page.url.rstrip("/") == tab.base


def test_replay_of_those_shown_asks_with_the_count(open_tab: OpenTab, server: str) -> None:
    seed_dead_letters(server, "mail", 7)
    tab = open_tab()
    page = tab.open("/dead-letters")
    asked: list[str] = []

    def agree(dialog: Dialog) -> None:
        asked.append(dialog.message)
        dialog.accept()

    page.on("dialog", agree)

    page.get_by_role("button", name="Replay the 7 shown").click()

    expect(page.locator("#flash")).to_contain_text("Replayed 7 jobs")
    expect(page.locator("h1")).to_have_text("No dead letters")
    assert "7 jobs" in asked[0]


def test_everything_works_without_javascript(open_tab: OpenTab, server: str) -> None:
    seed_dead_letters(server, "mail", 1)
    tab = open_tab(java_script_enabled=False)
    page = tab.open("/")

    page.get_by_role("button", name="Pause mail").click()
    expect(page.locator("#flash")).to_contain_text("The queue is paused")
    page.goto(f"{tab.base}/jobs/mail/d0")
    page.get_by_role("button", name="Replay").click()

    expect(page.locator("#flash")).to_contain_text("Replayed 1 job")
    expect(page.locator("#why")).to_contain_text("paused")


def test_the_filter_keeps_what_was_typed_while_the_page_lives(
    open_tab: OpenTab, server: str
) -> None:
    add_jobs(server, "mail", "x", [{}])
    add_jobs(server, "webhooks", "x", [{}])
    tab = open_tab()
    page = tab.open("/")
    expect(page.locator("#queues tbody tr")).to_have_count(2)

    page.locator("#filter").press_sequentially("web")
    expect(page.locator("#queues tbody tr")).to_have_count(1)
    add_jobs(server, "webhooks", "x", [{}] * 4)

    expect(page.locator("#queues tbody tr td").nth(1)).to_contain_text("5")
    expect(page.locator("#filter")).to_have_value("web")
    expect(page.locator("#filter")).to_be_focused()
    assert "filter=web" in page.url


def test_charts_draw_and_follow(open_tab: OpenTab, server: str) -> None:
    add_jobs(server, "mail", "x", [{}] * 3)
    tab = open_tab()
    page = tab.open("/queues/mail")

    expect(page.locator("#chart-depth .main-svg").first).to_be_visible()
    expect(page.locator("#chart-flow .main-svg").first).to_be_visible()
    add_jobs(server, "mail", "x", [{}] * 30)

    expect(page.locator("#chart-depth .ytick").last).to_contain_text("30")
    expect(page.locator("#chart-depth .main-svg").first).to_be_visible()


def test_the_theme_switch_is_remembered(open_tab: OpenTab) -> None:
    tab = open_tab()
    page = tab.open("/")
    switch = page.locator("[data-theme-switch]")
    switch.click()
    switch.click()
    page.reload()

    expect(page.locator("html")).to_have_attribute("data-theme", "dark")


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1_440, 360])
@pytest.mark.parametrize("content", ["empty", "busy", "hostile"])
def test_pages_are_clean_for_everybody(  # noqa: PLR0917 - pytest passes them by name
    open_tab: OpenTab,
    server: str,
    axe: str,
    content: str,
    width: int,
    scheme: str,
) -> None:
    paths = dict(
        zip(("overview", "queue", "queue-failed", "dead-letters", "workers"), PAGES, strict=True)
    )
    if content == "empty":
        paths = {name: path for name, path in paths.items() if not name.startswith("queue")}
    else:
        seed_dead_letters(server, "mail", 60, HOSTILE if content == "hostile" else ("boom",))
        add_jobs(server, "webhooks", "deliver_webhook", [{"order": n} for n in range(40)])
        on_queue(server, "reports", lambda queue: queue.add("nightly", {}, delay="1h"))
        on_queue(server, "reports", lambda queue: queue.pause())
        paths["job"] = "/jobs/mail/d0"
        paths["job-hostile"] = "/jobs/mail/d4"
    tab = open_tab(width, scheme)
    page = tab.open("/")
    if content != "empty":
        expect(page.locator("#queues tbody tr")).to_have_count(3)

    for name, path in paths.items():
        page = tab.open(path)
        if name.startswith("queue"):
            expect(page.locator("#chart-flow .main-svg").first).to_be_visible()
        tab.shoot(f"{name}-{content}-{'wide' if width > 1_000 else 'narrow'}-{scheme}")
        sideways = page.evaluate(
            "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )
        assert sideways <= 0, f"{path} scrolls sideways by {sideways} px"
        check_access(tab, axe)
