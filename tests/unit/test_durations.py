from __future__ import annotations

from datetime import timedelta

import pytest

from tickbird import InvalidOption
from tickbird.durations import Duration, parse_duration_ms


@pytest.mark.parametrize(
    ("written", "ms"),
    [
        ("250ms", 250), ("30s", 30_000), ("1.5s", 1_500), ("10m", 600_000), ("10min", 600_000),
        ("2h", 7_200_000), ("1d", 86_400_000), (" 5 s ", 5_000), (2, 2_000), (0.5, 500), (0, 0),
        (timedelta(minutes=1), 60_000),
    ],
)  # fmt: skip
def test_a_duration_is_text_with_a_unit_or_seconds(written: Duration, ms: int) -> None:
    assert parse_duration_ms(written, "delay") == ms


@pytest.mark.parametrize(
    "written",
    ["", "10", "s", "-1s", "1w", "ten", "1e3s", "\u0661s", -1, float("nan"), float("inf"), True, None,
     "99999999d", timedelta(seconds=-1)],
)  # fmt: skip
def test_anything_else_is_refused_by_name(written: Duration) -> None:
    with pytest.raises(InvalidOption, match="delay"):
        parse_duration_ms(written, "delay")
