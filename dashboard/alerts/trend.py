"""Does a series trend up? One definition, for the built-in alerts; pure, standard library only.

`monitoring/rules/tickbird.rules.yml` approximates the same definition in PromQL.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass
from statistics import NormalDist, median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

PARTS = 10
"""The window is cut into this many equal parts; a part counts as the median of its values."""
FEWEST_PARTS = 8
"""With more empty parts than this leaves, a series has too many gaps to be judged."""
SIGNIFICANCE = 0.05
FLOOR = 10.0
FLOOR_SHARE = 0.1

_Z_95 = NormalDist().inv_cdf(0.975)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trend:
    """What a window of a series says.

    `slope_per_s` is the Theil-Sen slope, `interval` its 95 % bounds, `p_value` that of
    the Mann-Kendall test, `rise` the slope times the window. `first` and `last` are the
    values at the window's ends, `first_at_ms` is when `first` was seen. A series that
    cannot be judged (too short, too many gaps) has slope 0, p-value 1 and is not rising.

    `is_rising` is the definition (see `rising`); `is_sustained` says in addition that the
    rise is no burst of the last minutes, no wave and no scatter (see `_is_sustained`).
    """

    slope_per_s: float = 0.0
    interval: tuple[float, float] = (0.0, 0.0)
    p_value: float = 1.0
    rise: float = 0.0
    noise_floor: float = FLOOR
    first: float = 0.0
    first_at_ms: int = 0
    last: float = 0.0
    is_rising: bool = False
    is_sustained: bool = False


def rising(
    series: Sequence[tuple[int, float]],
    *,
    window_s: float,
    day_before: float | None = None,
    floor: float = FLOOR,
    floor_share: float = FLOOR_SHARE,
) -> Trend:
    """The trend of the `window_s` seconds that end with the series' last point.

    Points are (epoch milliseconds, value), oldest first. The series rises when all hold:

    - the Theil-Sen slope over the medians of the window's ten equal parts lifts it, over
      the window, by more than the noise floor: `floor`, or `floor_share` of the median of
      all values in the window if that is more;
    - the Mann-Kendall test over the same medians is significant (two-sided, p < 0.05);
    - the last value exceeds the first by the floor;
    - the last value exceeds `day_before` by the floor: the highest value of the same hour,
      give or take one, a day ago. None says that there is no such history, and then this
      condition does not hold the alert back.

    Values that are not finite are left out. After a clock that ran backwards only the
    points since then count. The series must reach back to the window's first part, and
    at most two of the ten parts may be empty, else it is not judged.
    """
    points = _window(series, window_s)
    parts = _parts(points, window_s)
    if parts is None:
        return Trend()
    medians = [median(values) for _, values in parts]
    (first_at_ms, first), (_, last) = points[0], points[-1]
    noise_floor = max(floor, floor_share * median(value for _, value in points))
    slope, interval = theil_sen(
        [(at_s, middle) for (at_s, _), middle in zip(parts, medians, strict=True)]
    )
    p_value = mann_kendall(medians)
    rise = slope * window_s
    scatter = 2 * median(_quartile_range(values) for _, values in parts)
    return Trend(
        slope_per_s=slope,
        interval=interval,
        p_value=p_value,
        rise=rise,
        noise_floor=noise_floor,
        first=first,
        first_at_ms=first_at_ms,
        last=last,
        is_rising=(
            rise > noise_floor
            and p_value < SIGNIFICANCE
            and last - first >= noise_floor
            and (day_before is None or last - day_before >= noise_floor)
        ),
        is_sustained=rise > scatter and _is_sustained(medians, noise_floor),
    )


def theil_sen(points: Sequence[tuple[float, float]]) -> tuple[float, tuple[float, float]]:
    """The slope of (time, value) points and its 95 % bounds; at least two times must differ.

    The slope is the median of the slopes of all pairs: one part in four may be anything
    without moving it. The bounds are order statistics of the same slopes, as far from the
    middle as the spread of Kendall's S says.
    Source: P. K. Sen (1968), "Estimates of the regression coefficient based on Kendall's
    tau", J. Amer. Statist. Assoc. 63; the bounds as in R. O. Gilbert (1987), "Statistical
    Methods for Environmental Pollution Monitoring", section 16.5.1.
    """
    slopes = sorted(
        (y2 - y1) / (t2 - t1)
        for i, (t1, y1) in enumerate(points)
        for t2, y2 in points[i + 1 :]
        if t2 != t1
    )
    spread = _Z_95 * math.sqrt(_variance_of_s([value for _, value in points]))
    low = max(0, round((len(slopes) - spread) / 2) - 1)
    high = min(len(slopes) - 1, round((len(slopes) + spread) / 2))
    return median(slopes), (slopes[low], slopes[high])


def mann_kendall(values: Sequence[float]) -> float:
    """The two-sided p-value of "there is no trend" in equally spaced values.

    S, the number of rising pairs less the number of falling ones, is compared with its
    normal approximation, corrected for ties and for continuity. The exact distribution
    is simple only without ties, and idle queues are full of ties; for 8, 9 and 10 values
    without ties both give the same verdict at 5 % (a test goes through every S).
    Source: H. B. Mann (1945), "Nonparametric tests against trend", Econometrica 13;
    M. G. Kendall (1975), "Rank Correlation Methods", for ties and continuity.
    """
    s = sum(
        (later > earlier) - (later < earlier)
        for i, earlier in enumerate(values)
        for later in values[i + 1 :]
    )
    variance = _variance_of_s(values)
    if s == 0 or variance == 0:
        return 1.0
    z = (abs(s) - 1) / math.sqrt(variance)
    return math.erfc(z / math.sqrt(2))


def time_to_drain_s(trend: Trend) -> tuple[float, float, float | None] | None:
    """Seconds until the series is at zero at its present slope: earliest, likely, latest.

    None: never at this slope. Latest None: the slope's interval does not rule out never.
    """
    if trend.last <= 0:
        return (0.0, 0.0, 0.0)
    if trend.slope_per_s >= 0:
        return None
    steepest, flattest = trend.interval
    return (
        trend.last / -min(steepest, trend.slope_per_s),
        trend.last / -trend.slope_per_s,
        trend.last / -flattest if flattest < 0 else None,
    )


def _variance_of_s(values: Sequence[float]) -> float:
    n = len(values)
    ties = sum(t * (t - 1) * (2 * t + 5) for t in Counter(values).values())
    return (n * (n - 1) * (2 * n + 5) - ties) / 18


def _window(series: Sequence[tuple[int, float]], window_s: float) -> list[tuple[int, float]]:
    """The finite points of the last `window_s` seconds, from the last backward clock step on."""
    points = [point for point in series if math.isfinite(point[1])]
    for index in range(len(points) - 1, 0, -1):
        if points[index - 1][0] > points[index][0]:
            points = points[index:]
            break
    if not points:
        return []
    start_ms = points[-1][0] - window_s * 1_000
    # The window is open at its start, so that it has ten parts of equally many samples.
    return points[bisect_left(points, (math.floor(start_ms) + 1, -math.inf)) :]


def _parts(
    points: Sequence[tuple[int, float]], window_s: float
) -> list[tuple[float, list[float]]] | None:
    """(middle of the part in seconds, its values) for each part with points; None: too few."""
    if not points:
        return None
    part_ms = window_s * 1_000 / PARTS
    end_ms = points[-1][0]
    parts: list[list[float]] = [[] for _ in range(PARTS)]
    for at_ms, value in points:
        parts[PARTS - 1 - min(PARTS - 1, int((end_ms - at_ms) / part_ms))].append(value)
    if not parts[0] or sum(map(bool, parts)) < FEWEST_PARTS:
        return None
    middles = ((index + 0.5) * part_ms / 1_000 for index in range(PARTS))
    return [(at_s, part) for at_s, part in zip(middles, parts, strict=True) if part]


def _is_sustained(medians: Sequence[float], noise_floor: float) -> bool:
    """Whether the rise had begun by the middle of the window and has not turned since.

    After a calm of equal values the Mann-Kendall test is significant two or three parts
    into a burst, and stays so while the burst drains: ties count for little in its variance.
    """
    had_begun = min(medians[3:5]) - medians[0] >= noise_floor / 8
    return had_begun and medians[-1] >= max(medians) - noise_floor / 2


def _quartile_range(values: list[float]) -> float:
    ordered = sorted(values)
    return ordered[3 * len(ordered) // 4] - ordered[len(ordered) // 4]
