"""PURE: a spec as canonical JSON, which a job's row and its signed task both hold: made once for one spec."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from cronkeeper.domain.job import JobSpec, spec_to_dict
from cronkeeper.wire.codec import dumps

#: So many are kept, and none of a longer text than that: 2 MB at most, and half of it usually.
_KEPT, _LONGEST = 256, 4096


class _Shape(NamedTuple):
    spec: JobSpec
    fields: Mapping[str, Any]
    text: str


#: By identity, which the spec that is kept there makes sure of: nobody changes a spec.
_shapes: dict[int, _Shape] = {}


def spec_text(spec: JobSpec) -> str:
    """Return the canonical JSON of a spec, defaults included."""
    return _shape(spec).text


def spec_fields(spec: JobSpec) -> Mapping[str, Any]:
    """Return what `spec_to_dict` returns, which is not to be changed."""
    return _shape(spec).fields


def _shape(spec: JobSpec) -> _Shape:
    kept = _shapes.get(id(spec))
    if kept is not None and kept.spec is spec:
        return kept
    fields = spec_to_dict(spec)
    made = _Shape(spec, fields, dumps(fields).decode())
    if len(made.text) <= _LONGEST:
        if len(_shapes) >= _KEPT:
            _shapes.clear()
        _shapes[id(spec)] = made
    return made
