"""One object for all that are equal: what thousands of specs have in common is kept once. PURE.

Only what nobody can change is shared: texts, frozen values, and mappings behind a proxy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")
S = TypeVar("S", str, str | None)

#: How many different values of a kind are looked out for: fewer than that are common to many.
_KEPT = 4096
#: Larger mappings are hardly ever common to many, and much to keep.
_MOST_ITEMS = 8
_NOTHING: Mapping[str, Any] = MappingProxyType({})


def nothing() -> Mapping[str, Any]:
    """Return the one empty mapping."""
    return _NOTHING


def or_nothing(items: dict[str, T]) -> Mapping[str, T]:
    """Return a mapping of one's own, or the one that is empty."""
    return items or _NOTHING


def common(text: S) -> S:
    """Return the one text of those that are equal, for such as there are only a few of."""
    return text if text is None else _common(text)


@lru_cache(maxsize=_KEPT)
def _common(text: str) -> str:
    return text


def shared(make: Callable[P, T]) -> Callable[P, T]:
    """Have a maker of frozen values return the same object for the same arguments."""
    return lru_cache(maxsize=_KEPT, typed=True)(make)  # type: ignore[return-value]


@lru_cache(maxsize=_KEPT)
def one_text(text: str) -> str:
    """Return the one text of those that are equal, as long as there are not too many."""
    return text


def texts(items: Mapping[str, Any]) -> Mapping[str, str]:
    """Return the one mapping of those that say the same, with the same order; a large one is one's own."""
    if not items:
        return _NOTHING
    pairs = tuple((str(key), str(value)) for key, value in items.items())
    return _texts(pairs) if len(pairs) <= _MOST_ITEMS else MappingProxyType(dict(pairs))


@lru_cache(maxsize=_KEPT)
def _texts(items: tuple[tuple[str, str], ...]) -> Mapping[str, str]:
    return MappingProxyType(dict(items))
