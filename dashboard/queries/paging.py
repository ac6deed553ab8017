"""Parts of a list: bounded offsets in, links to the neighbours out."""

from __future__ import annotations

from dashboard.problems import BadInput
from dashboard.views import Pages

MAX_OFFSET = 1_000_000
"""Beyond this a list wants a search, not another page."""


def parse_offset(text: str | None, name: str = "offset") -> int:
    """A bounded whole number from the query string; BadInput names the parameter."""
    if not text:
        return 0
    if len(text) > 7 or not (text.isascii() and text.isdigit()):  # noqa: PLR2004 - the digits of MAX_OFFSET
        raise BadInput(f"{name} must be a whole number between 0 and {MAX_OFFSET:,}.")
    value = int(text)
    if value > MAX_OFFSET:
        raise BadInput(f"{name} must be a whole number between 0 and {MAX_OFFSET:,}.")
    return value


def pages_of(offset: int, limit: int, shown: int, total: int) -> Pages:
    """Where the part of `shown` rows at `offset` is within `total`."""
    end = offset + shown
    return Pages(
        first=offset + 1 if shown else 0,
        last=end,
        total=max(total, end),
        previous=max(0, offset - limit) if offset else None,
        following=end if shown == limit and end < total else None,
    )
