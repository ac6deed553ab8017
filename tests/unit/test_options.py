from __future__ import annotations

from typing import Any

import pytest

from tickbird import InvalidOption, Keep, Queue
from tickbird.options import parse_options


def test_a_misspelt_option_is_answered_with_the_right_one() -> None:
    with pytest.raises(InvalidOption, match="unknown option 'dealy', did you mean 'delay'"):
        parse_options({"dealy": 5})


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"priority": -1}, "priority must be between 0 and 2,097,151"),
        ({"priority": 2_097_152}, "priority"),
        ({"priority": True}, "priority"),
        ({"attempts": 0}, "attempts must be between 1"),
        ({"attempts": "3"}, "attempts"),
        ({"delay": "soon"}, "delay"),
        ({"backoff": "x"}, "backoff"),
        ({"timestamp_ms": 0}, "timestamp_ms"),
        ({"keep_failed": -1}, "keep_failed"),
        ({"telemetry": 5}, "telemetry"),
        ({"telemetry": "x" * 8_193}, "telemetry"),
    ],
)
def test_an_option_out_of_range_is_named(options: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidOption, match=named):
        parse_options(options)


@pytest.mark.parametrize(
    "job_id",
    [
        "",
        "12",
        "-3",
        "0",
        "a:b",
        "a b",
        "a{b}",
        "a\n",
        "ü",
        "x" * 129,
        "wait",
        "active",
        "delayed",
        "id",
    ],
)
def test_an_id_that_breaks_a_peer_is_refused(job_id: str) -> None:
    with pytest.raises(InvalidOption, match="job_id"):
        parse_options({"job_id": job_id})


@pytest.mark.parametrize("job_id", ["order-1", "a/b?c=d", "12a", "waiting", "A" * 128])
def test_other_ids_are_taken(job_id: str) -> None:
    assert parse_options({"job_id": job_id}).job_id == job_id


@pytest.mark.parametrize("name", ["", "a:b", "a b", "a\n", "ü", "q" * 129])
def test_a_queue_name_that_breaks_keys_is_refused(name: str) -> None:
    with pytest.raises(InvalidOption, match="queue's name"):
        Queue(name, redis="redis://localhost:1")


@pytest.mark.parametrize("prefix", ["", "tickbird", "tickbird:x"])
def test_a_prefix_of_our_own_keys_is_refused(prefix: str) -> None:
    with pytest.raises(InvalidOption, match="prefix"):
        Queue("mail", prefix=prefix, redis="redis://localhost:1")


def test_a_keep_rule_is_checked() -> None:
    with pytest.raises(InvalidOption, match="keep count"):
        Keep(count=-1)
    with pytest.raises(InvalidOption, match="keep age"):
        Keep(age="long")
