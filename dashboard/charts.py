"""Everything drawn: sparklines and bars as geometry for inline SVG, Plotly figures as JSON.

Colours are names of CSS tokens ("var(--waiting)"); the browser resolves them, so a chart
follows the theme. Plotly's names are checked once, at the first use, by plotly itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from dashboard.views import Bar, Segment, Spark

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

POINTS = 60
WIDTH, HEIGHT = 100.0, 24.0
_TOP, _BOTTOM = 2.0, 23.0


def spark(values: Sequence[float | None], *, label: str, trend: str = "flat") -> Spark:
    """A sparkline over equally spaced values, thinned to 60 points; gaps where None."""
    points = _thin(values)
    known = [value for value in points if value is not None]
    top = max(known, default=0.0)
    low = min(0.0, min(known, default=0.0))
    span = (top - low) or 1.0
    step = WIDTH / max(1, len(points) - 1)
    runs: list[list[str]] = [[]]
    for index, value in enumerate(points):
        if value is None:
            runs.append([])
            continue
        y = _BOTTOM - (value - low) / span * (_BOTTOM - _TOP)
        runs[-1].append(f"{index * step:.1f} {y:.1f}")
    drawn = [run if len(run) > 1 else run * 2 for run in runs if run]
    return Spark(
        line=" ".join("M" + " L".join(run) for run in drawn),
        fill=" ".join(_area(run) for run in drawn),
        label=label,
        trend=trend,
    )


def _area(run: Sequence[str]) -> str:
    first, last = run[0].split()[0], run[-1].split()[0]
    return "M" + " L".join(run) + f" L{last} {HEIGHT:.0f} L{first} {HEIGHT:.0f} Z"


def _thin(values: Sequence[float | None]) -> list[float | None]:
    """At most 60 values: the mean of equal parts, the newest part whole."""
    size = -(-len(values) // POINTS) or 1
    start = len(values) % size
    parts = [values[:start]] if start else []
    parts += [values[i : i + size] for i in range(start, len(values), size)]
    return [_mean(part) for part in parts]


def _mean(part: Sequence[float | None]) -> float | None:
    known = [value for value in part if value is not None]
    return sum(known) / len(known) if known else None


def bar(parts: Mapping[str, float]) -> Bar:
    """A bar of named parts; each that is not zero gets at least one percent."""
    kept = {name: value for name, value in parts.items() if value > 0}
    total = sum(kept.values())
    segments: list[Segment] = []
    x = 0.0
    for name, value in kept.items():
        width = max(1.0, value / total * 100)
        segments.append(Segment(state=name, x=round(x, 1), width=round(width, 1)))
        x += width
    label = ", ".join(f"{name.replace('_', ' ')} {value:,.0f}" for name, value in kept.items())
    return Bar(segments=tuple(segments), label=label or "no jobs")


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line of a Plotly chart: its name, the token of its colour, its unit."""

    name: str
    color: str
    filled: bool = False
    axis: str = "y"


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """A kind of chart: what it shows and how; data is added per request."""

    kind: str
    title: str
    unit: str
    lines: tuple[Line, ...]


CHARTS = {
    chart.kind: chart
    for chart in (
        Chart(
            kind="depth",
            title="Depth",
            unit="jobs",
            lines=(
                Line(name="ready to run", color="var(--waiting)", filled=True),
                Line(name="dead letters", color="var(--failed)"),
            ),
        ),
        Chart(
            kind="flow",
            title="Throughput",
            unit="jobs per second",
            lines=(
                Line(name="finished", color="var(--completed)", filled=True),
                Line(name="failed for good", color="var(--failed)"),
            ),
        ),
    )
}


def figure(chart: Chart, at_ms: Sequence[int], columns: Sequence[Sequence[float]]) -> bytes:
    """The JSON of a Plotly figure over these times; one column per line of the chart."""
    import msgspec  # noqa: PLC0415 - with plotly below: only pages with charts pay for it

    traces, layout = _skeleton(chart)
    x = _axis(at_ms)
    data = [
        {**trace, **x, "y": list(column)} for trace, column in zip(traces, columns, strict=True)
    ]
    return msgspec.json.encode({"data": data, "layout": layout})


def _axis(at_ms: Sequence[int]) -> dict[str, Any]:
    """Times as start and step where they are equally spaced, else one by one."""
    if len(at_ms) < 2:  # noqa: PLR2004 - a step needs two
        return {"x": list(at_ms)}
    step = (at_ms[-1] - at_ms[0]) / (len(at_ms) - 1)
    if all(abs(at_ms[0] + i * step - at) < step / 2 for i, at in enumerate(at_ms)):
        return {"x0": at_ms[0], "dx": round(step, 3)}
    return {"x": list(at_ms)}


@lru_cache(maxsize=16)
def _skeleton(chart: Chart) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Traces without data and the layout, checked by plotly (a wrong name raises)."""
    import plotly.graph_objects as go  # type: ignore[import-untyped] # noqa: PLC0415 - 60 ms that only charts need
    import plotly.io as pio  # type: ignore[import-untyped] # noqa: PLC0415

    pio.templates.default = None
    plot = go.Figure(
        data=[
            go.Scatter(
                name=line.name,
                mode="lines",
                line={"width": 1.5, "shape": "linear"},
                fill="tozeroy" if line.filled else "none",
                meta={"color": line.color},
                hovertemplate="%{y:,} " + line.name + "<extra></extra>",
            )
            for line in chart.lines
        ],
        layout=go.Layout(
            margin={"l": 48, "r": 16, "t": 8, "b": 28},
            height=220,
            hovermode="x unified",
            dragmode="zoom",
            showlegend=True,
            legend={"orientation": "h", "x": 0, "y": 1.12, "yanchor": "bottom"},
            xaxis={"type": "date", "showgrid": False, "tickformat": "%H:%M:%S", "nticks": 6},
            yaxis={"rangemode": "tozero", "fixedrange": True, "nticks": 5, "tickformat": ",~r"},
            uirevision=chart.kind,
        ),
    )
    plain: dict[str, Any] = plot.to_plotly_json()
    return plain["data"], plain["layout"]
