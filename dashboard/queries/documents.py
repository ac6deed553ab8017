"""Stored JSON as a tree that shows what is stored: numbers as written, keys as repeated."""

from __future__ import annotations

import json
from typing import Any

from dashboard.filters import size
from dashboard.views import Document, Node

SHOWN_BYTES = 64_000
MAX_DEPTH = 64
MAX_NODES = 5_000


class _Number(str):
    """A number as its source text: 9007199254740993 stays that, 1.0 is not 1."""

    __slots__ = ()


class _Pairs(list[tuple[str, Any]]):
    """An object as its pairs in order; a key may come twice."""

    __slots__ = ()


def document(title: str, text: str | None) -> Document:
    """A stored value for the page. Whatever cannot be a tree is shown as it is."""
    if text is None:
        return Document(title=title, node=None, raw="", note="none", size_bytes=0)
    size_bytes = len(text.encode("utf-8", errors="surrogatepass"))
    if size_bytes > SHOWN_BYTES:
        shown = text.encode("utf-8", errors="surrogatepass")[:SHOWN_BYTES]
        raw = shown.decode("utf-8", errors="surrogatepass" if shown.isascii() else "replace")
        note = f"The first {size(SHOWN_BYTES)} of {size(size_bytes)}."
        return Document(title=title, node=None, raw=raw, note=note, size_bytes=size_bytes)
    try:
        node = _tree(_parse(text))
    except (ValueError, RecursionError) as reason:
        return Document(
            title=title, node=None, raw=text, note=_reason(text, reason), size_bytes=size_bytes
        )
    return Document(title=title, node=node, raw="", note="", size_bytes=size_bytes)


def _parse(text: str) -> Any:
    return json.loads(
        text,
        parse_int=_Number,
        parse_float=_Number,
        parse_constant=_Number,
        object_pairs_hook=_Pairs,
    )


class _TooMuch(ValueError):
    """The value is JSON, and larger than a tree should be."""


def _tree(value: Any) -> Node:
    left = MAX_NODES

    def build(value: Any, key: str | None, depth: int) -> Node:
        nonlocal left
        left -= 1
        if left < 0 or depth > MAX_DEPTH:
            raise _TooMuch
        match value:
            case _Pairs():
                parts = tuple(build(item, name, depth + 1) for name, item in value)
                return Node(kind="object", key=key, children=parts)
            case list():
                parts = tuple(build(item, None, depth + 1) for item in value)
                return Node(kind="array", key=key, children=parts)
            case _Number():
                return Node(kind="number", key=key, text=str(value))
            case str():
                return Node(kind="string", key=key, text=json.dumps(value, ensure_ascii=False))
            case _:
                return Node(kind="word", key=key, text=json.dumps(value))

    return build(value, None, 0)


def _reason(text: str, reason: Exception) -> str:
    if isinstance(reason, (_TooMuch, RecursionError)):
        return "Too deep or too many values for a tree; the raw text:"
    if text.startswith(("\\x80\x04", "\udc80\x04")):
        return "Binary; it looks like a pickle and is not decoded:"
    return "Not JSON; the raw text:" if text else "Empty."
