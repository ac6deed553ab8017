from __future__ import annotations

from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tickbird.cron import parse_cron
from tickbird.recurrence import is_over, next_cron_ms, next_every_ms

MINUTE_MS = 60_000
times = st.integers(1_000_000_000_000, 2_000_000_000_000)
intervals = st.integers(100, 10**9)


def first_every(every_ms: int, now_ms: int, offset_ms: int | None = None) -> tuple[int, int]:
    return next_every_ms(
        every_ms=every_ms, now_ms=now_ms, prev_ms=None, offset_ms=offset_ms, start_ms=None
    )


def test_the_first_iteration_is_due_at_once_and_gives_the_offset() -> None:
    assert first_every(2_000, 1_795_451_562_535) == (1_795_451_562_535, 535)  # as recorded


@pytest.mark.parametrize(
    ("every_ms", "offset_ms", "now_ms", "prev_ms", "due_ms"),
    [
        (2_000, 535, 1_795_451_562_616, 1_795_451_562_535, 1_795_451_564_535),  # as recorded
        (60_000, 535, 1_795_451_562_770, 1_795_451_562_767, 1_795_451_622_767),  # as recorded
        (60_000, None, 1_795_451_640_010, 1_795_451_640_000, 1_795_451_700_000),
    ],
)
def test_later_iterations_follow_by_the_interval(
    every_ms: int, offset_ms: int | None, now_ms: int, prev_ms: int, due_ms: int
) -> None:
    found_ms, _ = next_every_ms(
        every_ms=every_ms, now_ms=now_ms, prev_ms=prev_ms, offset_ms=offset_ms, start_ms=None
    )

    assert found_ms == due_ms


@pytest.mark.parametrize("offset_ms", [10_000, None])
def test_missed_iterations_are_left_out_and_the_rhythm_is_kept(offset_ms: int | None) -> None:
    due = next_every_ms(
        every_ms=MINUTE_MS,
        now_ms=100 * MINUTE_MS + 500,
        prev_ms=3 * MINUTE_MS + 10_000,
        offset_ms=offset_ms,
        start_ms=None,
    )

    assert due == (100 * MINUTE_MS + 10_000, 10_000)


def test_a_start_to_come_is_the_first_time_and_a_past_one_is_none() -> None:
    due_ms = [
        next_every_ms(
            every_ms=MINUTE_MS, now_ms=1_000_000, prev_ms=None, offset_ms=None, start_ms=start_ms
        )
        for start_ms in (1_234_567, 999_999)
    ]

    assert due_ms == [(1_234_567, 34_567), (1_000_000, 40_000)]


@pytest.mark.parametrize(
    ("now_ms", "due_ms"), [(605_000, 610_000), (610_000, 670_000), (615_000, 670_000)]
)
def test_with_an_offset_the_first_is_its_next_slot(now_ms: int, due_ms: int) -> None:
    assert first_every(MINUTE_MS, now_ms, offset_ms=10_000) == (due_ms, 10_000)


@settings(deadline=None)
@given(every_ms=intervals, now_ms=times, missed_ms=times, offset_ms=st.integers(0, 10**9))
def test_later_iterations_never_lie_in_the_past(
    every_ms: int, now_ms: int, missed_ms: int, offset_ms: int
) -> None:
    prev_ms = min(now_ms, missed_ms)

    due_ms, offset_ms = next_every_ms(
        every_ms=every_ms,
        now_ms=now_ms,
        prev_ms=prev_ms,
        offset_ms=offset_ms % every_ms,
        start_ms=None,
    )

    assert now_ms <= due_ms <= now_ms + every_ms
    assert due_ms > prev_ms
    assert due_ms % every_ms == offset_ms


@pytest.mark.parametrize(
    ("pattern", "tz", "now_ms", "prev_ms", "due_ms"),
    [  # as recorded
        ("0 30 3 * * *", "Europe/Rome", 1_795_451_563_084, None, 1_795_487_400_000),
        ("*/2 * * * * *", "UTC", 1_795_451_563_156, None, 1_795_451_564_000),
        ("*/2 * * * * *", "UTC", 1_795_451_564_013, 1_795_451_564_000, 1_795_451_566_000),
        ("*/2 * * * * *", "UTC", 1_795_451_566_019, 1_795_451_566_000, 1_795_451_568_000),
        ("0 3 * * *", "UTC", 1_795_451_587_670, None, 1_795_489_200_000),
    ],
)
def test_cron_iterations_are_those_of_the_recordings(
    pattern: str, tz: str, now_ms: int, prev_ms: int | None, due_ms: int
) -> None:
    found_ms = next_cron_ms(
        parse_cron(pattern), now_ms=now_ms, prev_ms=prev_ms, start_ms=None, zone=ZoneInfo(tz)
    )

    assert found_ms == due_ms


@settings(deadline=None)
@given(now_ms=times, prev_ms=st.none() | times, start_ms=st.none() | times)
def test_cron_iterations_come_after_now_the_one_before_and_the_start(
    now_ms: int, prev_ms: int | None, start_ms: int | None
) -> None:
    latest_ms = max(now_ms, prev_ms or 0, start_ms or 0)

    due_ms = next_cron_ms(
        parse_cron("* * * * *"),
        now_ms=now_ms,
        prev_ms=prev_ms,
        start_ms=start_ms,
        zone=ZoneInfo("UTC"),
    )

    assert due_ms is not None
    assert latest_ms < due_ms <= latest_ms + MINUTE_MS


@pytest.mark.parametrize(
    ("count", "limit", "now_ms", "end_ms", "over"),
    [
        (1, None, 5, None, False),
        (4, 5, 5, None, False),
        (5, 5, 5, None, True),
        (6, 5, 5, None, True),
        (1, None, 5, 5, False),
        (1, None, 6, 5, True),
        (1, 2, 6, 5, True),
    ],
)
def test_a_schedule_ends_by_count_or_by_date(
    *, count: int, limit: int | None, now_ms: int, end_ms: int | None, over: bool
) -> None:
    assert is_over(count=count, limit=limit, now_ms=now_ms, end_ms=end_ms) is over
