"""What people read: numbers, durations, strings from strangers, JSON trees, stack traces."""

from __future__ import annotations

import json
from urllib.parse import unquote

import pytest

from dashboard import charts, filters
from dashboard.assets import from_segment, to_segment
from dashboard.problems import NotThere
from dashboard.queries.documents import MAX_NODES, SHOWN_BYTES, document
from dashboard.queries.stacks import SHOWN_CHARS, SHOWN_LINES, error_of, frames_of
from dashboard.views import Node


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (None, "–"),  # noqa: RUF001 - what is shown
        (0, "0 ms"),
        (0.2, "<1 ms"),
        (380, "380 ms"),
        (999.9, "1.0 s"),
        (4_900, "4.9 s"),
        (59_600, "1 min"),
        (271_000, "4 min 31 s"),
        (11_520_000, "3 h 12 min"),
        (187_200_000, "2 d 4 h"),
        (1e300, "–"),  # noqa: RUF001 - nobody meant that
    ],
)
def test_durations_are_human(ms: float | None, text: str) -> None:
    assert filters.duration(ms) == text


@pytest.mark.parametrize("at_ms", [None, 0, -1, 10**20])
def test_a_time_nobody_meant_is_unknown(at_ms: int | None) -> None:
    assert filters.ago(at_ms, 1_700_000_000_000) == "unknown"
    assert filters.iso(at_ms) == "unknown"


def test_the_past_the_future_and_now() -> None:
    assert filters.ago(1_000, 13_500) == "12 s ago"
    assert filters.ago(20_000, 13_500) == "in 6 s"
    assert filters.ago(13_000, 13_500) == "now"


def test_what_cannot_be_seen_is_made_visible() -> None:
    assert filters.visible("a\x00\x1b\u202eb\udcff\ud800\n") == "a\\x00\\x1b\\u202eb\\xff\\ud800\n"


@pytest.mark.parametrize(
    "text",
    [
        "mail",
        "acme:mail",
        "a/b",
        "..",
        "",
        "~x",
        "50%",
        "é😀",
        "\udcff\udcfe",
        "a b",
        "\x00",
        "a?b#c",
        "x" * 300,
    ],
)
def test_any_text_survives_being_a_path_segment(text: str) -> None:
    segment = to_segment(text)

    assert "/" not in segment
    assert from_segment(unquote(segment)) == text


def test_a_segment_that_is_no_encoding_names_nothing() -> None:
    with pytest.raises(NotThere):
        from_segment("~!!!")


def test_numbers_keep_their_source() -> None:
    node = document("Data", '{"id": 9007199254740993, "x": 1.0, "y": 1e400, "z": -0}').node

    assert node is not None
    assert [child.text for child in node.children] == ["9007199254740993", "1.0", "1e400", "-0"]


def test_a_number_of_5000_digits_is_shown_as_written() -> None:
    digits = "7" * 5_000

    node = document("Data", digits).node

    assert node == Node(kind="number", text=digits)


def test_a_key_that_comes_twice_is_shown_twice() -> None:
    node = document("Data", '{"a": 1, "a": 2}').node

    assert node is not None
    assert [(child.key, child.text) for child in node.children] == [("a", "1"), ("a", "2")]


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        "[" * 80 + "]" * 80,
        json.dumps(list(range(MAX_NODES + 1))),
        "not json",
        "",
        "{",
    ],
)
def test_what_cannot_be_a_tree_is_shown_as_it_is(text: str) -> None:
    shown = document("Data", text)

    assert shown.node is None
    assert shown.note
    assert shown.raw == text[:SHOWN_BYTES]


def test_a_large_document_is_cut_and_says_so() -> None:
    shown = document("Data", json.dumps("é" * 100_000, ensure_ascii=False))

    assert "64 kB of 200 kB" in shown.note
    assert len(shown.raw) <= SHOWN_BYTES


PYTHON = """Traceback (most recent call last):
  File "/usr/lib/python3.11/asyncio/tasks.py", line 1, in wait_for
    return await fut
  File "/app/shop/tasks.py", line 88, in deliver_webhook
    response = await http.post(url)
  File "/app/.venv/lib/python3.11/site-packages/httpx/_client.py", line 1920, in post
    return await self.request()
httpx.ConnectTimeout: hooks.example.net did not answer
"""
NODE = """Error: boom
    at charge (/app/billing.js:12:9)
    at Worker.run (/app/node_modules/bullmq/dist/worker.js:1:2)
    at node:internal/process/task_queues:95:5"""


def test_own_frames_are_told_from_libraries_in_python() -> None:
    frames = frames_of(PYTHON)

    assert [frame.kind for frame in frames] == ["text", "lib", "own", "lib", "text"]
    assert "deliver_webhook" in frames[2].text
    assert error_of(PYTHON) == "httpx.ConnectTimeout: hooks.example.net did not answer"


def test_own_frames_are_told_from_libraries_in_node() -> None:
    frames = frames_of(NODE)

    assert [frame.kind for frame in frames] == ["text", "own", "lib"]
    assert error_of(NODE) == "Error: boom"


def test_a_huge_stack_is_cut_in_the_middle() -> None:
    shown = "".join(frame.text for frame in frames_of("x\n" * 200_000))
    one_line = "".join(frame.text for frame in frames_of("y" * 1_000_000))

    assert len(shown.splitlines()) <= SHOWN_LINES + 1
    assert "left out" in shown
    assert len(one_line) < SHOWN_CHARS + 100


def test_a_sparkline_has_at_most_60_points_and_gaps_where_nothing_is_known() -> None:
    drawn = charts.spark([float(i) for i in range(600)], label="depth")
    broken = charts.spark([1.0, None, 2.0, 3.0], label="p95")

    assert drawn.line.count(" L") == 59
    assert broken.line.count("M") == 2
    assert charts.spark([], label="nothing").line == ""


def test_a_chart_is_checked_json_with_tokens_for_colours() -> None:
    body = charts.figure(charts.CHARTS["depth"], [1_000, 2_000, 3_000], [[1, 2, 3], [0, 0, 1]])

    figure = json.loads(body)
    assert figure["data"][0]["x0"] == 1_000
    assert figure["data"][0]["dx"] == 1_000
    assert figure["data"][0]["meta"]["color"] == "var(--waiting)"


def test_unequal_times_are_given_one_by_one() -> None:
    body = charts.figure(charts.CHARTS["flow"], [1_000, 2_000, 9_000], [[1, 2, 3], [0, 0, 1]])

    assert json.loads(body)["data"][0]["x"] == [1_000, 2_000, 9_000]
