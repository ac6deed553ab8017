"""The comparer itself: it must see what it is there to see."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.golden.keyspace import KeySpace, RecordedStep, as_stored, differences, read_recording

RECORDING = Path(__file__).parent / "recordings" / "failed_backoff.v6.json"


@pytest.fixture
def step() -> RecordedStep:
    _, steps = read_recording(RECORDING)
    return steps[2]


@pytest.fixture
def keys(step: RecordedStep) -> KeySpace:
    return step.key_space()


def test_a_key_space_equals_itself(step: RecordedStep, keys: KeySpace) -> None:
    assert len(keys) == 6
    assert differences(step.key_space(), keys) == []


def test_a_changed_field_is_seen(step: RecordedStep, keys: KeySpace) -> None:
    keys["q:1"].value["atm"] = "3"

    assert differences(step.key_space(), keys) == ["q:1[atm]: expected '2', found '3'"]


def test_a_missing_and_an_extra_field_are_seen(step: RecordedStep, keys: KeySpace) -> None:
    del keys["q:1"].value["failedReason"]
    keys["q:1"].value["defa"] = "x"

    assert differences(step.key_space(), keys) == [
        "q:1[defa]: expected None, found 'x'",
        "q:1[failedReason]: expected 'second', found None",
    ]


def test_a_changed_option_is_seen(step: RecordedStep, keys: KeySpace) -> None:
    keys["q:1"].value["opts"]["backoff"]["delay"] = 201

    (line,) = differences(step.key_space(), keys)
    assert line.startswith("q:1[opts]")


def test_a_missing_and_an_extra_key_are_seen(step: RecordedStep, keys: KeySpace) -> None:
    keys["q:wait"] = keys.pop("q:delayed")

    assert [line.split(",")[0] for line in differences(step.key_space(), keys)] == [
        "q:delayed: missing",
        "q:wait: should not exist",
    ]


def test_a_score_wrong_by_one_is_seen(step: RecordedStep, keys: KeySpace) -> None:
    keys["q:delayed"].value["1"] += 1

    assert len(differences(step.key_space(), keys)) == 1


def test_a_missing_event_and_a_swapped_pair_are_seen(step: RecordedStep, keys: KeySpace) -> None:
    events = keys["q:events"].value
    events[0], events[1] = events[1], events[0]
    swapped = differences(step.key_space(), keys)
    events[0], events[1] = events[1], events[0]

    gone = events.pop()

    assert len(swapped) == 1
    assert gone["event"] == "delayed"
    assert len(differences(step.key_space(), keys)) == 1


def test_the_order_of_an_events_fields_is_seen(step: RecordedStep, keys: KeySpace) -> None:
    event = keys["q:events"].value[-1]
    keys["q:events"].value[-1] = dict(reversed(event.items()))

    assert len(differences(step.key_space(), keys)) == 1


def test_another_order_of_a_list_is_seen() -> None:
    one = {"q:wait": as_stored("q:wait", "list", ["2", "1"], -1)}
    other = {"q:wait": as_stored("q:wait", "list", ["1", "2"], -1)}

    assert len(differences(one, other)) == 1


def test_a_time_to_live_is_seen_when_it_is_lost_or_far_off() -> None:
    def locked(pttl: int) -> KeySpace:
        return {"q:1:lock": as_stored("q:1:lock", "string", "token", pttl)}

    assert differences(locked(30_000), locked(29_000)) == []
    assert len(differences(locked(30_000), locked(-1))) == 1
    assert len(differences(locked(30_000), locked(60_000))) == 1


def test_a_number_is_not_the_text_of_it() -> None:
    one = {"q:1": as_stored("q:1", "hash", {"data": "1"}, -1)}
    other = {"q:1": as_stored("q:1", "hash", {"data": '"1"'}, -1)}

    assert len(differences(one, other)) == 1


def test_what_is_ours_alone_does_not_count(step: RecordedStep, keys: KeySpace) -> None:
    assert as_stored(
        "q:1", "hash", {"name": "x", "tb:rdy": "5", "opts": '{"tb":1,"attempts":3}'}, -1
    ) == as_stored("q:1", "hash", {"name": "x", "opts": '{"attempts":3}'}, -1)
    assert as_stored(
        "q:events", "stream", [{"id": "1-0", "fields": {"event": "paused", "tb": "1"}}], -1
    ) == as_stored("q:events", "stream", [{"id": "2-0", "fields": {"event": "paused"}}], -1)
    assert "version" not in keys["q:meta"].value
    assert step.keys["q:meta"]["value"]["version"] == "bullmq:6.7.0"
