from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tickbird import InvalidOption
from tickbird.cron import parse_cron, zone

Fires = list[int | None] | str
Row = tuple[str, str, str, Fires]

# What Node's cron-parser answers; made by tests/interop/node/cron_table.mjs, see its head.
TABLE: dict[str, list[Row]] = json.loads((Path(__file__).parent / "cron_table.json").read_text())


def ms(iso: str) -> int:
    return round(datetime.fromisoformat(iso).timestamp() * 1_000)


def our_fires(pattern: str, tz: str, moment: str) -> Fires:
    try:
        cron, place = parse_cron(pattern), zone(tz)
    except InvalidOption:
        return "refused"
    fires: list[int | None] = []
    after_ms: int | None = ms(moment)
    for _ in range(3):
        assert after_ms is not None
        after_ms = cron.next_ms(after_ms, place)
        fires.append(after_ms)
    return fires


def is_as_in_table(row: Row) -> bool:
    """Whether we answer alike, up to where cron-parser gives up: there we go on, forwards."""
    pattern, tz, moment, theirs = row
    ours = our_fires(pattern, tz, moment)
    if isinstance(theirs, str) or isinstance(ours, str):
        return ours == theirs
    known = theirs.index(None) if None in theirs else len(theirs)
    times = [ms(moment), *(fire or 0 for fire in ours)]
    return ours[:known] == theirs[:known] and times == sorted(set(times))


def test_the_table_is_large_enough_to_mean_something() -> None:
    assert sum(len(rows) for rows in TABLE.values()) > 1_500


@pytest.mark.parametrize("group", TABLE)
def test_fire_times_are_those_of_cron_parser(group: str) -> None:
    differing = [(row, our_fires(*row[:3])) for row in TABLE[group] if not is_as_in_table(row)]

    assert differing == []


@pytest.mark.parametrize("group", TABLE)
def test_a_changed_row_is_noticed(group: str) -> None:
    pattern, tz, moment, theirs = TABLE[group][0]
    changed: Fires = [0] if isinstance(theirs, str) else [(theirs[0] or 0) + 1_000, *theirs[1:]]

    assert not is_as_in_table((pattern, tz, moment, changed))


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("60 * * * *", "minute cannot be '60'; it may be 0-59"),
        ("* 24 * * *", "hour cannot be '24'; it may be 0-23"),
        ("* * 0 * *", "day of month cannot be '0'; it may be 1-31"),
        ("* * * 13 *", "month cannot be '13'; it may be 1-12 or jan-dec"),
        ("* * * * 8", "day of week cannot be '8'; it may be 0-7 or sun-sat"),
        ("61 * * * * *", "second cannot be '61'; it may be 0-59"),
        ("0 0 15W * *", "day of month cannot be '15W'"),
        ("*/0 * * * *", "minute cannot have the step"),
        ("0 0 1 january *", "month knows no name 'uar'"),
        ("0,0 * * * *", "minute names 0 twice"),
        ("0 0 * * 5#6", "day of week cannot be '5#6'"),
        ("* * * * * * *", "must have 5 fields"),
        ("", "must have 5 fields"),
        ("0 0 31 4,6 *", "never fires"),
        ("H * * * *", "minute cannot be 'H'"),
        ("1" * 5_000 + " * * * *", "may have 1,000 characters"),
    ],
)
def test_a_wrong_pattern_is_refused_by_field_and_range(pattern: str, message: str) -> None:
    with pytest.raises(InvalidOption) as refused:
        parse_cron(pattern)

    assert message in str(refused.value)


def test_an_unknown_zone_is_refused_with_the_nearest() -> None:
    with pytest.raises(InvalidOption, match=r"'Europe/Berln', did you mean 'Europe/Berlin'\?"):
        zone("Europe/Berln")


def test_a_machine_without_time_zone_data_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tickbird.cron._zones_by_lower_name", dict)

    with pytest.raises(InvalidOption, match="no time zone data; install the system's tzdata"):
        zone("No/Where")


def test_a_very_long_zone_is_refused_unread() -> None:
    with pytest.raises(InvalidOption, match="64 characters, not 5,000"):
        zone("x" * 5_000)


def test_an_offset_of_a_day_or_more_is_refused() -> None:
    with pytest.raises(InvalidOption, match="less than 24 hours"):
        zone("UTC+24")


def test_a_moment_beyond_the_calendar_has_no_next_time() -> None:
    assert parse_cron("@yearly").next_ms(ms("9999-06-01T00:00:00Z"), UTC) is None
    assert parse_cron("@yearly").next_ms(10**18, UTC) is None


def test_where_cron_parser_loops_we_find_the_time_after_the_change() -> None:
    half_an_hour_back = ms(
        "2024-04-06T14:00:00Z"
    )  # 01:00 in Lord Howe, clocks go from 2:00 to 1:30

    fires_ms = parse_cron("0 2 * * *").next_ms(half_an_hour_back, ZoneInfo("Australia/Lord_Howe"))

    assert fires_ms == ms("2024-04-06T15:30:00Z")


@settings(deadline=None)
@given(
    after_ms=st.integers(ms("1990-01-01T00:00:00Z"), ms("2040-01-01T00:00:00Z")),
    pattern=st.sampled_from(
        ["* * * * *", "30 2 * * *", "*/7 1-3 * * *", "0 0 L * 5", "0 0 29 2 *"]
    ),
    tz=st.sampled_from(
        ["Europe/Berlin", "Australia/Lord_Howe", "America/St_Johns", "Pacific/Apia"]
    ),
)
def test_time_never_goes_back(after_ms: int, pattern: str, tz: str) -> None:
    next_ms = parse_cron(pattern).next_ms(after_ms, ZoneInfo(tz))

    assert next_ms is not None
    assert next_ms > after_ms
    assert next_ms % 1_000 == 0


@settings(deadline=None)
@given(
    after_ms=st.integers(0, ms("2040-01-01T00:00:00Z")),
    minute=st.integers(0, 59),
    hour=st.integers(0, 23),
    day=st.integers(1, 28),
    month=st.integers(1, 12),
)
def test_a_fire_time_shows_the_fields_of_its_pattern(
    after_ms: int, minute: int, hour: int, day: int, month: int
) -> None:
    next_ms = parse_cron(f"{minute} {hour} {day} {month} *").next_ms(after_ms, UTC)

    assert next_ms is not None
    found = datetime.fromtimestamp(next_ms / 1_000, UTC)
    assert (found.minute, found.hour, found.day, found.month) == (minute, hour, day, month)
    assert next_ms - after_ms <= 366 * 86_400_000


@settings(deadline=None)
@given(st.text(alphabet="0123456789,-*/?L#WHl janmofri@", max_size=20))
def test_any_text_is_understood_or_refused(text: str) -> None:
    try:
        cron = parse_cron(text)
    except InvalidOption:
        return
    assert cron.next_ms(0, UTC) is not None
