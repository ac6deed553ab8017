"""Stack traces of Python and JavaScript, with the user's own frames told from libraries'."""

from __future__ import annotations

import re

from dashboard.views import Frame

SHOWN_CHARS = 64_000
SHOWN_LINES = 400

_PYTHON = re.compile(r'\s*File "(?P<path>[^"]*)", line \d+')
_NODE = re.compile(r"\s+at .*?\(?(?P<path>[^()\s]+):\d+:\d+\)?\s*$")
_LIBRARY = re.compile(
    r"site-packages|dist-packages|/lib/python\d|[\\/]Lib[\\/]|^<|node_modules|^node:|^internal/"
    r"|/tickbird/(?:storage/)?\w+\.py$"
)


def frames_of(stack: str) -> tuple[Frame, ...]:
    """A stack trace in parts: `own`, `lib` and `text`, neighbours of a kind joined."""
    lines = _bounded(stack)
    kinds: list[str] = []
    kind = "text"
    for line in lines:
        match = _PYTHON.match(line) or _NODE.match(line)
        if match:
            kind = "lib" if _LIBRARY.search(match["path"]) else "own"
        elif not line.startswith("    "):  # not the source line below a frame
            kind = "text"
        kinds.append(kind)
    frames: list[Frame] = []
    for kind, line in zip(kinds, lines, strict=True):
        if frames and frames[-1].kind == kind:
            frames[-1] = Frame(kind=kind, text=f"{frames[-1].text}\n{line}")
        else:
            frames.append(Frame(kind=kind, text=line))
    return tuple(frames)


def error_of(stack: str) -> str:
    """The sentence of a stack trace: Python ends with it, JavaScript begins with it."""
    lines = [line for line in stack[-4_000:].splitlines() if line.strip()]
    if not lines:
        return ""
    if _NODE.match(lines[-1]):
        return stack[:500].splitlines()[0]
    return lines[-1].strip()


def _bounded(stack: str) -> list[str]:
    """Head and tail of what is too long; a cut is marked."""
    if len(stack) > SHOWN_CHARS:
        half = SHOWN_CHARS // 2
        stack = (
            f"{stack[:half]}\n… {len(stack) - SHOWN_CHARS:,} characters left out …\n{stack[-half:]}"
        )
    lines = stack.rstrip().splitlines()
    if len(lines) > SHOWN_LINES:
        half = SHOWN_LINES // 2
        left_out = len(lines) - SHOWN_LINES
        lines = [*lines[:half], f"… {left_out:,} lines left out …", *lines[-half:]]
    return lines
