"""Every way a request can fail, and the status and sentence it is answered with, in one table."""

from __future__ import annotations

from dataclasses import dataclass

from litestar.exceptions import HTTPException

from tickbird import InvalidOption, TickbirdError

MAX_DETAIL = 200
"""Characters of a detail that are sent back; it may hold what the client sent."""


class Refused(Exception):
    """A request we understand and do not carry out; `status` says why in HTTP's words."""

    def __init__(self, sentence: str, status: int = 403) -> None:
        super().__init__(sentence)
        self.status = status


class NotThere(Refused):
    """What the URL names does not exist (any more)."""

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence, 404)


class BadInput(Refused):
    """A parameter is outside what it may be; the sentence names it and its range."""

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence, 400)


class NoFigures(Refused):
    """There has never been a good sample, so there is nothing to show."""

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence, 503)


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """What an error answer says."""

    status: int
    title: str
    detail: str
    hint: str = ""


_TITLES = {
    400: "That request cannot be read",
    401: "Sign in",
    403: "Not allowed",
    404: "Not found",
    405: "Not that way",
    409: "Too late",
    413: "Too much",
    503: "Redis does not answer",
}
_HINTS = {
    403: "Reload the page and try again.",
    404: "It may have been removed, or the link is incomplete.",
    503: "The dashboard keeps trying; this page will work again as soon as Redis does.",
}


def problem_of(error: Exception) -> Problem:
    """The problem an exception stands for; anything unknown is a 500 without a detail."""
    status, detail = _status_and_detail(error)
    title = _TITLES.get(status, "Something went wrong" if status >= 500 else "Refused")  # noqa: PLR2004
    return Problem(
        status=status, title=title, detail=detail[:MAX_DETAIL], hint=_HINTS.get(status, "")
    )


def _status_and_detail(error: Exception) -> tuple[int, str]:
    match error:
        case Refused():
            return error.status, str(error)
        case HTTPException():
            return error.status_code, _plain(error)
        case InvalidOption():
            return 400, str(error)
        case TickbirdError():  # RedisUnavailable and what may come beside it
            return 503, str(error)
        case TimeoutError():
            return 503, "Redis did not answer in time."
    return 500, "The log of the dashboard says what."


def _plain(error: HTTPException) -> str:
    """A sentence for a framework's own refusal; its detail may quote the client at length."""
    match error.status_code:
        case 404:
            return "There is no such page."
        case 405:
            return "This address does not take that method."
        case 400:
            return "A parameter is missing or not what it should be."
        case _:
            return error.detail or "The request was refused."
