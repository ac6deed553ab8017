from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from tickbird import Backoff, InvalidOption, JobOptions, Keep, Outcome
from tickbird.errors import DataTooLarge
from tickbird.stats import BOUNDS_MS, Histogram, bucket_of
from tickbird.storage import wire
from tickbird.storage.counters import stats_from_hash


@pytest.mark.parametrize(
    "data",
    [float("nan"), [1, float("inf")], {"a": {"b": -float("inf")}}, {"a": {1, 2}, "b": object()},
     {"lone": "\ud800"}],
)  # fmt: skip
def test_data_that_is_not_json_is_refused(data: Any) -> None:
    with pytest.raises(InvalidOption, match="not JSON"):
        wire.encode_data(data)


def test_null_text_and_null_values_are_no_nan() -> None:
    assert wire.encode_data({"a": None, "b": "null"}) == b'{"a":null,"b":"null"}'


def test_data_over_the_limit_is_refused_with_both_sizes() -> None:
    with pytest.raises(DataTooLarge, match=r"12 bytes, the limit is 10"):
        wire.encode_data("x" * 10, 10)


def test_deep_data_is_refused_and_brackets_in_text_are_not_depth() -> None:
    deep: list[Any] = []
    for _ in range(64):
        deep = [deep]

    with pytest.raises(InvalidOption, match="nested deeper than 64"):
        wire.encode_data(deep)
    assert wire.encode_data("[" * 100 + '\\"{')


def test_big_integers_stay_exact() -> None:
    assert wire.encode_data({"id": 9007199254740993}) == b'{"id":9007199254740993}'


def test_options_are_stored_under_bullmqs_names() -> None:
    options = JobOptions(
        delay="5s", priority=3, attempts=4, backoff=Backoff("exponential", "1s", 0.5), job_id="o-1",
        keep_completed=Keep(age="1h", count=10), keep_failed=True,
    )  # fmt: skip

    assert json.loads(wire.encode_options(options)) == {
        "attempts": 4, "delay": 5_000, "priority": 3, "jobId": "o-1",
        "backoff": {"type": "exponential", "delay": 1_000, "jitter": 0.5},
        "removeOnComplete": {"count": 10, "age": 3_600}, "removeOnFail": False, "tb": 1,
    }  # fmt: skip


@pytest.mark.parametrize(
    "raw",
    [b"", b"{", b"[]", b"null", b"\xff", b'{"attempts":"x","backoff":7,"removeOnFail":"?"}',
     b'{"attempts":1e999}', b'{"backoff":{"delay":-5,"jitter":"a"}}', b"[" * 5_000],
)  # fmt: skip
def test_options_of_any_kind_are_read_without_an_error(raw: bytes) -> None:
    options = wire.decode_options(raw)

    assert options.attempts == 1
    assert options.backoff_ms >= 0


@pytest.mark.parametrize(
    ("stored", "rule"),
    [
        (True, wire.KeepRule(count=0)), (False, wire.KeepRule()), (50, wire.KeepRule(count=50)),
        ({"age": 60, "count": 5, "limit": 7}, wire.KeepRule(count=5, age_s=60, limit=7)),
        ({"age": 60}, wire.KeepRule(age_s=60)),
    ],
)  # fmt: skip
def test_keep_rules_of_node_are_understood(stored: Any, rule: wire.KeepRule) -> None:
    raw = msgspec.json.encode({"removeOnComplete": stored})

    assert wire.decode_options(raw).keep_completed == rule


def test_ids_of_any_bytes_survive_the_way_through_text() -> None:
    odd = b"a \xff\n%/\x00"

    assert wire.raw_bytes(wire.text(odd)) == odd


def test_waiting_time_starts_when_the_job_could_run() -> None:
    def wait_ms(**fields: Any) -> int | None:
        flat: list[bytes] = [b"name", b"x"]
        for name, value in fields.items():
            flat += [name.replace("_", ":").encode(), str(value).encode()]
        return wire.taken_job(b"1", flat, b"t", 10_000).wait_ms

    assert wait_ms(timestamp=4_000) == 6_000
    assert wait_ms(timestamp=4_000, opts='{"delay":5000}') == 1_000
    assert wait_ms(timestamp=4_000, tb_rdy=9_000, processedOn=8_000) == 1_000
    assert wait_ms(timestamp=4_000, tb_rdy=7_000, processedOn=8_000) is None  # a peer put it back
    assert wait_ms(timestamp=4_000, processedOn=8_000) is None
    assert wait_ms(timestamp=12_000) == 0  # a producer's clock ahead of the server's


def test_counters_are_read_back_by_task_and_outcome() -> None:
    stats = stats_from_hash(
        {
            b"added:mail:send": b"5", b"run:completed:3:mail:send": b"4", b"run:failed:0:mail:send": b"1",
            b"run_ms:completed:mail:send": b"18", b"wait:2:mail:send": b"5", b"wait_ms:mail:send": b"14",
            b"dead:attempts:mail:send": b"1", b"replayed:failed": b"2", b"stalled": b"3",
            b"task:mail:send": b"1", b"tasks": b"1", b"of a newer version:x": b"9", b"run:x": b"?",
        }
    )  # fmt: skip

    task = stats.tasks["mail:send"]
    assert list(stats.tasks) == ["mail:send"]
    assert task.added == 5
    assert task.attempts == {Outcome.COMPLETED: 4, Outcome.FAILED: 1}
    assert task.run[Outcome.COMPLETED].sum_ms == 18
    assert task.wait.total == 5
    assert task.dead_lettered == {"attempts": 1}
    assert (stats.stalled, stats.replayed, stats.attempts()) == (3, {"failed": 2}, 5)


def test_a_quantile_lies_inside_its_bucket() -> None:
    counts = [0] * (len(BOUNDS_MS) + 1)
    for duration_ms in range(1, 101):
        counts[bucket_of(duration_ms)] += 1
    histogram = Histogram(tuple(counts), 5_050)

    assert histogram.quantile_ms(0.5) == pytest.approx(50)
    assert histogram.quantile_ms(0.95) == pytest.approx(95)
    assert histogram.at_most(100) == 100
    assert Histogram().quantile_ms(0.5) is None


def test_every_published_bucket_is_a_sum_of_ours() -> None:
    wait_s = (.01, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300, 600, 1800, 3600, 21600)  # fmt: skip
    run_s = (.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300, 600, 1800, 3600)  # fmt: skip

    assert {round(s * 1_000) for s in (*wait_s, *run_s)} <= set(BOUNDS_MS)
