"""Writes: from our own pages only, refused when read-only, remembered."""

from __future__ import annotations

import pytest

from dashboard.store import DashboardStore
from tests.dashboard.factories import HTMX, fail_jobs, running_dashboard
from tickbird import JobState, Queue


async def test_pause_and_resume_answer_with_the_changed_page(redis_url: str, queue: Queue) -> None:
    await queue.add("send", {})
    label = queue.ref.label

    async with running_dashboard(redis_url) as board:
        paused = await board.post(f"/queues/{label}/pause?from=overview&filter={label}", **HTMX)
        resumed = await board.post(f"/queues/{label}/resume", **HTMX)

    assert 'id="overview"' in paused.text
    assert f"/queues/{label}/resume" in paused.text
    assert "is paused" in paused.text
    assert 'id="queue"' in resumed.text
    assert "runs again" in resumed.text


async def test_without_htmx_an_action_leads_to_the_page_it_was_on(
    redis_url: str, queue: Queue
) -> None:
    await queue.add("send", {})
    label = queue.ref.label

    async with running_dashboard(redis_url) as board:
        answer = await board.post(f"/queues/{label}/pause")
        html = await board.page(answer.headers["location"])

    assert answer.status_code == 303
    assert "The queue is paused" in html


async def test_replay_puts_a_dead_letter_back_once(redis_url: str, queue: Queue) -> None:
    await fail_jobs(queue, redis_url)
    path = f"/jobs/{queue.ref.label}/dead-0/replay"

    async with running_dashboard(redis_url) as board:
        first = await board.post(path, **HTMX)
        again = await board.post(path, **HTMX)
        counts = board.services.figures().queue(queue.ref.label)

    assert "Replayed 1 job" in first.text
    assert again.status_code == 409
    assert again.headers["hx-retarget"] == "#flash"
    assert counts is not None
    assert counts.sample.counts[JobState.FAILED] == 0
    assert counts.sample.counts[JobState.WAITING] == 1


async def test_replay_of_those_shown_says_how_many_it_did(redis_url: str, queue: Queue) -> None:
    ids = await fail_jobs(queue, redis_url, 3)
    label = queue.ref.label
    jobs = [f"{label}/{job_id}" for job_id in ids]

    async with running_dashboard(redis_url) as board:
        await board.post("/dead-letters/replay", data={"job": jobs[:1]})
        answer = await board.post(f"/dead-letters/replay?queue={label}", data={"job": jobs}, **HTMX)

    assert "Replayed 2 of 3 jobs; 1 was already replayed or removed." in answer.text


@pytest.mark.parametrize(
    "jobs", [[], ["nonsense"], [f"mail/{n}" for n in range(51)], ["~!/1"], ["/1"]]
)
async def test_a_replay_of_nonsense_changes_nothing(redis_url: str, jobs: list[str]) -> None:
    async with running_dashboard(redis_url) as board:
        answer = await board.post("/dead-letters/replay", data={"job": jobs})

    assert answer.status_code in (400, 404)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "none"},
        {"Origin": "null"},
        {"Origin": "http://evil.example"},
        {"Sec-Fetch-Site": "cross-site", "Origin": "http://127.0.0.1:8000"},
    ],
)
async def test_what_another_site_may_have_sent_is_refused(
    redis_url: str, queue: Queue, headers: dict[str, str]
) -> None:
    await queue.add("send", {})
    label = queue.ref.label

    async with running_dashboard(redis_url) as board:
        paths = (
            f"/queues/{label}/pause",
            f"/queues/{label}/resume",
            f"/jobs/{label}/1/replay",
            "/dead-letters/replay",
        )
        answers = [await board.client.post(path, headers=headers) for path in paths]
        figures = (await board.services.refreshed()).queue(label)

    assert [answer.status_code for answer in answers] == [403] * 4
    assert figures is not None
    assert not figures.sample.paused


async def test_the_origin_counts_where_a_browser_says_nothing_else(
    redis_url: str, queue: Queue
) -> None:
    await queue.add("send", {})

    async with running_dashboard(redis_url) as board:
        answer = await board.client.post(
            f"/queues/{queue.ref.label}/pause", headers={"Origin": "http://127.0.0.1:8000"}
        )

    assert answer.status_code == 303


@pytest.mark.parametrize(
    "path", ["/queues/mail/pause", "/jobs/mail/1/replay", "/dead-letters/replay"]
)
async def test_a_get_never_acts(redis_url: str, path: str) -> None:
    async with running_dashboard(redis_url) as board:
        answer = await board.client.get(path)

    assert answer.status_code in (404, 405)


async def test_read_only_refuses_with_a_sentence_and_shows_no_buttons(
    redis_url: str, queue: Queue
) -> None:
    await fail_jobs(queue, redis_url)
    label = queue.ref.label

    async with running_dashboard(redis_url, read_only=True) as board:
        answer = await board.post(f"/queues/{label}/pause", Accept="text/html")
        replay = await board.post(f"/jobs/{label}/dead-0/replay")
        pages = [
            await board.page(path)
            for path in ("/", f"/queues/{label}", f"/jobs/{label}/dead-0", "/dead-letters")
        ]
        counts = board.services.actions.journal.counts

    assert answer.status_code == 403
    assert "read-only" in answer.text
    assert replay.status_code == 403
    assert not any('method="post"' in page for page in pages)
    assert counts == {("pause", "refused"): 1, ("replay", "refused"): 1}


async def test_every_action_is_remembered(redis_url: str, queue: Queue) -> None:
    await fail_jobs(queue, redis_url, 2)
    label = queue.ref.label

    async with running_dashboard(redis_url) as board:
        await board.post("/dead-letters/replay", data={"job": [f"{label}/dead-0", f"{label}/gone"]})
        await board.services.refreshed()
        snapshot = await board.services.sampler.run_once()
    store = DashboardStore(redis_url)
    records = [record for record in await store.recent() if record.queue == label]
    await store.aclose()

    assert len(records) == 1
    assert records[0].action == "replay"
    assert records[0].who == "anonymous"
    assert records[0].ids == ("dead-0", "gone")
    assert records[0].outcome == "1 of 2 done"
    assert snapshot.actions == {("replay", "done"): 1}


async def test_an_unknown_queue_cannot_be_paused(redis_url: str) -> None:
    async with running_dashboard(redis_url) as board:
        answer = await board.post("/queues/no-such-queue/pause", **HTMX)

    assert answer.status_code == 404
    assert "no such queue" in answer.text
