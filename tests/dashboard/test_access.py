"""Who comes in and with what: signing in, hosts, headers, input nobody should send."""

from __future__ import annotations

import base64
from typing import Any, cast

import httpx
import pytest

from dashboard.app import create_app
from dashboard.auth.headers import SECURITY_HEADERS
from dashboard.settings import Credentials, Settings
from tests.dashboard.factories import HTMX, running_dashboard
from tickbird import InvalidOption, Queue, RedisUnavailable

CREDENTIALS = Credentials(user="ops", password="s3:cret")


def basic(text: str) -> dict[str, str]:
    return {"Authorization": f"Basic {base64.b64encode(text.encode()).decode()}"}


@pytest.mark.parametrize(
    "path", ["/", "/nope", "/metrics", "/events", "/queues/mail", "/dead-letters/replay"]
)
async def test_strangers_are_asked_to_sign_in_whatever_they_ask_for(
    redis_url: str, path: str
) -> None:
    async with running_dashboard(redis_url, credentials=CREDENTIALS) as board:
        answer = await board.client.get(path)

    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith('Basic realm="Tickbird"')


@pytest.mark.parametrize(
    "headers",
    [
        basic("ops:wrong"),
        basic("other:s3:cret"),
        {"Authorization": "Basic !!!"},
        {"Authorization": "Bearer s3:cret"},
        {"Authorization": ""},
    ],
)
async def test_wrong_credentials_do_not_open(redis_url: str, headers: dict[str, str]) -> None:
    async with running_dashboard(redis_url, credentials=CREDENTIALS) as board:
        answer = await board.client.get("/", headers=headers)

    assert answer.status_code == 401


async def test_right_credentials_open_and_probes_need_none(redis_url: str) -> None:
    async with running_dashboard(redis_url, credentials=CREDENTIALS) as board:
        page = await board.client.get("/", headers=basic("ops:s3:cret"))
        metrics = await board.client.get("/metrics", headers=basic("ops:s3:cret"))
        probes = [
            (await board.client.get(path)).status_code
            for path in ("/healthz", "/readyz", "/static/css/app.css", "/favicon.ico")
        ]

    assert page.status_code == 200
    assert b"tickbird_up 1" in metrics.content
    assert probes == [200, 200, 200, 200]


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::", "example.net"])
def test_a_public_host_without_credentials_is_refused(host: str) -> None:
    with pytest.raises(InvalidOption, match="--auth"):
        Settings(host=host)
    Settings(host=host, credentials=CREDENTIALS)


@pytest.mark.parametrize("text", ["", "user", "user:", ":password"])
def test_credentials_need_both_parts(text: str) -> None:
    with pytest.raises(InvalidOption):
        Credentials.parse(text)


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8000", 200),
        ("localhost", 200),
        ("LOCALHOST.:8000", 200),
        ("[::1]:8000", 200),
        ("evil.example", 400),
        ("127.0.0.1.evil.example", 400),
        ("a@127.0.0.1", 400),
        ("", 400),
    ],
)
async def test_only_known_host_names_are_answered(redis_url: str, host: str, status: int) -> None:
    async with running_dashboard(redis_url) as board:
        answer = await board.client.get("/", headers={"Host": host})

    assert answer.status_code == status


async def test_more_host_names_can_be_allowed(redis_url: str) -> None:
    async with running_dashboard(redis_url, allowed_hosts=("jobs.example.net",)) as board:
        allowed = await board.client.get("/", headers={"Host": "jobs.example.net"})
        similar = await board.client.get("/", headers={"Host": "jobsXexample.net"})

    assert (allowed.status_code, similar.status_code) == (200, 400)


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/", {}),
        ("/", HTMX),
        ("/nope", {}),
        ("/nope", HTMX),
        ("/?sort=nope", {"Accept": "text/html"}),
        ("/static/css/app.css", {}),
        ("/static/nope.css", {}),
        ("/healthz", {}),
        ("/metrics", {}),
        ("/", {"Host": "evil.example"}),
    ],
)
async def test_every_answer_carries_the_security_headers(
    redis_url: str, path: str, headers: dict[str, str]
) -> None:
    async with running_dashboard(redis_url) as board:
        answer = await board.client.get(path, headers=headers)

    for name, value in SECURITY_HEADERS.items():
        assert answer.headers[name] == value
    assert "cache-control" in answer.headers
    assert "server" not in answer.headers


async def test_only_versioned_files_may_be_kept(redis_url: str) -> None:
    async with running_dashboard(redis_url) as board:
        page = await board.client.get("/")
        file = await board.client.get("/static/css/app.css")
        missing = await board.client.get("/static/nope.css")

    assert page.headers["cache-control"] == "no-store"
    assert "immutable" in file.headers["cache-control"]
    assert missing.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    "query",
    [
        "offset=abc",
        "offset=-1",
        "offset=99999999999999999999",
        "offset=\uff11",
        "offset=" + "9" * 5_000,
        "offset=1e3",
        "sort=nope",
        "filter=" + "x" * 200,
    ],
)
async def test_parameters_out_of_range_are_400_and_name_the_field(
    redis_url: str, query: str
) -> None:
    async with running_dashboard(redis_url) as board:
        html = await board.page(f"/?{query}", status=400)

    assert query.partition("=")[0] in html
    assert "9" * 300 not in html


async def test_an_unknown_state_is_400(redis_url: str, queue: Queue) -> None:
    await queue.add("send", {})

    async with running_dashboard(redis_url) as board:
        html = await board.page(f"/queues/{queue.ref.label}?state=done", status=400)

    assert "state must be one of" in html


@pytest.mark.parametrize(
    "path",
    [
        "/queues/%ff%fe",
        "/queues/%ed%a0%80",
        "/queues/a%00b",
        "/queues/a%0d%0ab",
        "/?filter=%1b%5b31m",
        "/?filter=%ff",
    ],
)
async def test_addresses_that_are_no_text_are_400(redis_url: str, path: str) -> None:
    async with running_dashboard(redis_url) as board:
        answer = await board.client.get(path)

    assert answer.status_code == 400


@pytest.mark.parametrize(
    "path", ["/static/%2e%2e/pyproject.toml", "/static/..%2fpyproject.toml", "/queues/a%2fb"]
)
async def test_paths_cannot_leave_their_folder(redis_url: str, path: str) -> None:
    async with running_dashboard(redis_url) as board:
        answer = await board.client.get(path)

    assert answer.status_code == 404


async def test_long_addresses_and_many_headers_are_refused(redis_url: str) -> None:
    async with running_dashboard(redis_url) as board:
        long = await board.client.get("/" + "x" * 20_000)
        wide = await board.client.get("/", headers={"X-Wide": "x" * 70_000})
        many = await board.client.get("/", headers={f"X-{n}": "x" for n in range(300)})

    assert [answer.status_code for answer in (long, wide, many)] == [414, 431, 431]


async def test_a_body_larger_than_any_form_of_ours_is_refused(redis_url: str) -> None:
    async with running_dashboard(redis_url) as board:
        answer = await board.post("/dead-letters/replay", data={"job": ["x" * 100_000]})

    assert answer.status_code == 413


async def test_an_error_is_a_fragment_a_page_or_json_as_asked(redis_url: str) -> None:
    async with running_dashboard(redis_url) as board:
        fragment = await board.client.get("/nope", headers=HTMX)
        page = await board.client.get("/nope", headers={"Accept": "text/html"})
        problem = await board.client.get("/nope")

    assert fragment.text.startswith('<p class="notice"')
    assert fragment.headers["hx-retarget"] == "#flash"
    assert page.text.startswith("<!doctype html>")
    assert problem.headers["content-type"] == "application/problem+json"
    assert problem.json()["status"] == 404


async def test_a_fault_of_ours_says_nothing_about_itself(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with running_dashboard(redis_url) as board:

        def fail() -> None:
            raise RuntimeError("secret detail")

        monkeypatch.setattr(board.services, "figures", fail)
        answer = await board.client.get("/", headers={"Accept": "text/html"})

    assert answer.status_code == 500
    assert "secret detail" not in answer.text
    assert "secret detail" in caplog.text


async def test_links_carry_the_root_path(redis_url: str, queue: Queue) -> None:
    await queue.add("send", {})
    app = create_app(Settings(redis_url=redis_url, sample_interval_s=3_600.0))
    transport = httpx.ASGITransport(app=cast("Any", app), root_path="/ops/queue")
    async with (
        app.lifespan(),
        httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as client,
    ):
        html = (await client.get("/ops/queue/")).text

    assert 'href="/ops/queue/static/css/app.css' in html
    assert f'href="/ops/queue/queues/{queue.ref.label}"' in html
    assert 'href="/queues' not in html


async def test_a_page_stays_with_its_age_when_redis_goes(redis_url: str, queue: Queue) -> None:
    await queue.add("send", {})

    async with running_dashboard(redis_url) as board:
        source = board.services.sampler.source

        async def gone() -> list[object]:
            raise RedisUnavailable("no Redis answers here")

        source.discover = gone  # type: ignore[method-assign,assignment]
        html = await board.page("/")

    assert "Redis does not answer" in html
    assert "no Redis answers here" in html
    assert queue.ref.label in html


async def test_without_any_sample_pages_are_503_and_probes_say_so() -> None:
    async with running_dashboard("unix:///tmp/no-such-socket") as board:
        html = await board.page("/", status=503)
        ready = await board.client.get("/readyz")
        alive = await board.client.get("/healthz")
        metrics = await board.client.get("/metrics")

    assert "Redis does not answer" in html
    assert ready.status_code == 503
    assert alive.text == "ok"
    assert b"tickbird_up 0" in metrics.content
