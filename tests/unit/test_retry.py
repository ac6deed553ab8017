from __future__ import annotations

import pytest

from tickbird import Backoff, InvalidOption, Retry
from tickbird.retry import backoff_ms


def test_fixed_backoff_is_the_same_each_time() -> None:
    delays = [backoff_ms("fixed", 200, 0, attempt) for attempt in (1, 2, 5)]

    assert delays == [200, 200, 200]


def test_exponential_backoff_doubles() -> None:
    delays = [backoff_ms("exponential", 200, 0, attempt) for attempt in (1, 2, 3, 4)]

    assert delays == [200, 400, 800, 1_600]


@pytest.mark.parametrize(("rand", "delay"), [(0.0, 100), (0.5, 150), (0.999, 199)])
def test_jitter_takes_its_share_of_the_delay(rand: float, delay: int) -> None:
    assert backoff_ms("fixed", 200, 0.5, 1, lambda: rand) == delay


def test_a_huge_attempt_number_stays_bounded() -> None:
    assert backoff_ms("exponential", 1_000, 0, 10_000) == 10 * 365 * 86_400_000


def test_a_kind_of_another_client_counts_as_fixed() -> None:
    assert backoff_ms("their own", 300, 0, 4) == 300


@pytest.mark.parametrize("attempts", [0, -1, True, 1.5, "3", 1_000_001])
def test_attempts_out_of_range_are_refused(attempts: int) -> None:
    with pytest.raises(InvalidOption, match="attempts must be between 1 and"):
        Retry(attempts)


def test_a_wrong_backoff_is_refused() -> None:
    with pytest.raises(InvalidOption, match="backoff type"):
        Backoff("linear")  # type: ignore[arg-type]
    with pytest.raises(InvalidOption, match="jitter"):
        Backoff(jitter=2)
