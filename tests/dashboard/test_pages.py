"""Each page as a browser without JavaScript sees it: by id and by text."""

from __future__ import annotations

import json
import re

import pytest
import redis.asyncio as aioredis

from dashboard.assets import to_segment
from tests.dashboard.factories import (
    HOSTILE,
    HTMX,
    NOW_MS,
    fail_jobs,
    put_job,
    running_dashboard,
)
from tickbird import Queue, QueueRef


def text_of(html: str, element_id: str) -> str:
    """The text of the element with an id, tags left out; up to the end of the page."""
    start = re.search(rf'id="{element_id}"[^>]*>', html)
    assert start, f"no element {element_id}"
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", html[start.end() :]))


async def test_the_overview_lists_a_queue_nobody_registered(redis_url: str, queue: Queue) -> None:
    await queue.add_many([("send", {"n": n}) for n in range(3)])

    async with running_dashboard(redis_url) as board:
        html = await board.page(f"/?filter={queue.ref.label}")

    assert queue.ref.label in text_of(html, "queues")
    assert f'href="/queues/{queue.ref.label}?state=waiting">3</a>' in html
    assert 'id="tiles"' in html


async def test_a_filter_that_matches_nothing_says_so(redis_url: str, queue: Queue) -> None:
    await queue.add("send", {})

    async with running_dashboard(redis_url) as board:
        html = await board.page("/?filter=no-such-queue")

    assert "No queue has that in its name." in html


async def test_without_any_queue_the_overview_says_how_they_come(redis_url: str) -> None:
    async with running_dashboard(redis_url.partition("?")[0] + "?db=9") as board:
        html = await board.page("/")

    assert "No queues yet" in text_of(html, "verdict")


@pytest.mark.parametrize(
    "sort", ["name", "depth", "oldest", "flow", "processing", "failing", "dead"]
)
async def test_the_overview_sorts_by_every_column(redis_url: str, queue: Queue, sort: str) -> None:
    await queue.add("send", {})

    async with running_dashboard(redis_url) as board:
        html = await board.page(f"/?sort={sort}")

    assert "aria-sort=" in html


async def test_htmx_gets_the_part_and_a_browser_the_page(redis_url: str, queue: Queue) -> None:
    await queue.add("send", {})

    async with running_dashboard(redis_url) as board:
        part = await board.page("/", headers=HTMX)
        page = await board.page("/")
        back = await board.page("/", headers={**HTMX, "HX-History-Restore-Request": "true"})

    assert part.lstrip().startswith('<div class="page" id="overview"')
    assert "<hx-partial" in part
    assert page.startswith("<!doctype html>")
    assert back.startswith("<!doctype html>")


async def test_a_queue_has_tabs_and_pages_of_fifty(redis_url: str, queue: Queue) -> None:
    await queue.add_many([("send", {"n": n}) for n in range(120)])
    path = f"/queues/{queue.ref.label}"

    async with running_dashboard(redis_url) as board:
        first = await board.page(f"{path}?state=waiting")
        last = await board.page(f"{path}?state=waiting&offset=100")
        beyond = await board.page(f"{path}?state=waiting&offset=5000")

    assert first.count('class="job-name"') == 50
    assert "offset=50" in first
    assert last.count('class="job-name"') == 20
    assert "120" in text_of(last, "jobs")
    assert "empty now" in beyond


async def test_an_unknown_queue_is_404(redis_url: str) -> None:
    async with running_dashboard(redis_url) as board:
        html = await board.page("/queues/no-such-queue", status=404)

    assert "no such queue" in html


async def test_a_chart_comes_as_json_and_as_a_table(redis_url: str, queue: Queue) -> None:
    await queue.add("send", {})

    async with running_dashboard(redis_url) as board:
        html = await board.page(f"/queues/{queue.ref.label}")
        figure = await board.client.get(f"/queues/{queue.ref.label}/charts/depth")
        wrong = await board.client.get(f"/queues/{queue.ref.label}/charts/nope")

    assert 'id="table-depth"' in html
    assert figure.json()["data"][0]["name"] == "ready to run"
    assert wrong.status_code == 404


async def test_a_waiting_job_says_why_it_does_not_run(redis_url: str, queue: Queue) -> None:
    handle = await queue.add("send", {"big": 2**60})
    path = f"/jobs/{queue.ref.label}/{handle.id}"

    async with running_dashboard(redis_url) as board:
        unserved = await board.page(path)
        await queue.pause()
        board.services.reads.forget()
        paused = await board.page(path)

    assert "no worker serves its queue" in text_of(unserved, "why")
    assert "1152921504606846976" in text_of(unserved, "data")
    assert "is paused" in text_of(paused, "why")
    assert "Resume" in text_of(paused, "why")


async def test_a_delayed_job_says_when_it_starts(redis_url: str, queue: Queue) -> None:
    handle = await queue.add("send", {}, delay="10m")

    async with running_dashboard(redis_url) as board:
        html = await board.page(f"/jobs/{queue.ref.label}/{handle.id}")

    assert re.search(r"starts in (9 min|10 min)", text_of(html, "why"))


async def test_a_dead_letter_shows_its_error_and_how_to_run_it_again(
    redis_url: str, queue: Queue
) -> None:
    stack = (
        'Traceback (most recent call last):\n  File "/app/x.py", line 1, in f\n    g()\nBoom: no'
    )
    await fail_jobs(queue, redis_url, stacktrace=json.dumps([stack]))

    async with running_dashboard(redis_url) as board:
        html = await board.page(f"/jobs/{queue.ref.label}/dead-0")

    assert "will not run again by itself" in text_of(html, "why")
    assert '<button id="replay"' in html
    assert "/app/x.py" in text_of(html, "attempts")


async def test_an_unknown_job_is_404(redis_url: str, queue: Queue) -> None:
    await queue.add("send", {})

    async with running_dashboard(redis_url) as board:
        html = await board.page(f"/jobs/{queue.ref.label}/nope", status=404)

    assert "no such job" in html


async def test_dead_letters_are_listed_and_filtered_by_queue(redis_url: str, queue: Queue) -> None:
    await fail_jobs(queue, redis_url, 60)
    label = queue.ref.label

    async with running_dashboard(redis_url) as board:
        everything = await board.page("/dead-letters")
        mine = await board.page(f"/dead-letters?queue={label}")
        rest = await board.page(f"/dead-letters?queue={label}&offset=50")

    assert label in text_of(everything, "letters")
    assert "Replay the 50 shown" in mine
    assert "boom" in text_of(mine, "letters")
    assert rest.count('class="job-name"') == 10


async def test_without_a_worker_the_page_says_how_to_start_one(redis_url: str) -> None:
    async with running_dashboard(redis_url) as board:
        html = await board.page("/workers")

    assert "tickbird worker" in html


@pytest.mark.parametrize("text", HOSTILE)
async def test_data_from_strangers_stays_text_on_every_page(
    redis_url: str, prefix: str, text: str
) -> None:
    ref = QueueRef("odd", prefix)
    fields = {
        "name": text,
        "data": text,
        "failedReason": text,
        "stacktrace": json.dumps([text]),
        "returnvalue": text,
        "progress": json.dumps(text),
        "opts": text,
        "finishedOn": str(NOW_MS),
    }
    job_id = text.replace(":", "")[:200]
    await put_job(redis_url, ref, job_id, fields, state="failed")
    await put_job(redis_url, ref, "waits", {**fields, "timestamp": "abc"})

    async with running_dashboard(redis_url) as board:
        pages = [
            await board.page("/"),
            await board.page(f"/queues/{ref.label}"),
            await board.page(f"/queues/{ref.label}?state=failed"),
            await board.page(f"/dead-letters?queue={ref.label}"),
            await board.page(f"/jobs/{ref.label}/waits"),
            await board.page(f"/jobs/{ref.label}/{to_segment(job_id)}"),
        ]

    for page in pages:
        for bad in (
            "<script>alert",
            "<img src=x",
            "<svg onload",
            '<a hx-get="/" data',
            "\x00",
            "\u202e",
        ):
            assert bad not in page


async def test_ids_that_are_no_text_can_be_opened(redis_url: str, prefix: str) -> None:
    ref = QueueRef("odd", prefix)
    await put_job(redis_url, ref, b"\xff\xfe/..\x00", {"name": b"\xff", "data": b"\x80\x04pickle"})

    async with running_dashboard(redis_url) as board:
        listed = await board.page(f"/queues/{ref.label}?state=waiting")
        link = re.search(r'class="job-name" href="([^"]+)"', listed)
        assert link
        html = await board.page(link[1])

    assert r"\xff\xfe" in html


async def test_a_queue_with_a_hostile_name_has_a_page(redis_url: str, prefix: str) -> None:
    ref = QueueRef("<svg/onload=alert(1)> a?b#c%", prefix)
    await put_job(redis_url, ref, "1")

    async with running_dashboard(redis_url) as board:
        overview = await board.page(f"/?filter={prefix}")
        html = await board.page(f"/queues/{to_segment(ref.label)}")

    assert to_segment(ref.label) in overview
    assert "<svg/onload" not in html


async def test_an_id_without_its_job_is_shown_as_missing(redis_url: str, queue: Queue) -> None:
    await queue.add("send", {})
    async with aioredis.Redis.from_url(redis_url) as client:
        await client.lpush(f"{queue.ref.prefix}:{queue.ref.name}:wait", "ghost")

    async with running_dashboard(redis_url) as board:
        html = await board.page(f"/queues/{queue.ref.label}?state=waiting")

    assert "missing" in text_of(html, "jobs")


async def test_a_broken_queue_is_marked_and_spoils_no_other(
    redis_url: str, queue: Queue, prefix: str
) -> None:
    await queue.add("send", {})
    async with aioredis.Redis.from_url(redis_url) as client:
        await client.hset(f"{prefix}:broken:meta", "opts.maxLenEvents", "1")
        await client.set(f"{prefix}:broken:wait", "a string")

    async with running_dashboard(redis_url) as board:
        html = await board.page(f"/?filter={prefix}")
        page = await board.page(f"/queues/{prefix}:broken")

    assert "unreadable" in text_of(html, "queues")
    assert queue.ref.label in text_of(html, "queues")
    assert "cannot be read" in page
