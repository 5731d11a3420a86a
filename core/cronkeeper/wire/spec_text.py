"""PURE: a spec as canonical JSON, which a job's row and its signed task both hold: made once for one spec."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cronkeeper.domain.job import JobSpec, spec_to_dict
from cronkeeper.wire.codec import dumps

#: The newest one: whoever asks for the fields has just asked for the text.
_newest: tuple[JobSpec | None, Mapping[str, Any]] = (None, {})


def spec_text(spec: JobSpec) -> str:
    """Return the canonical JSON of a spec, defaults included. It is kept with the spec: nobody changes one."""
    text = spec.text
    if text is None:
        text = dumps(spec_fields(spec)).decode()
        object.__setattr__(spec, "text", text)
    return text


def spec_fields(spec: JobSpec) -> Mapping[str, Any]:
    """Return what `spec_to_dict` returns, which is not to be changed."""
    global _newest
    kept, fields = _newest
    if kept is not spec:
        fields = spec_to_dict(spec)
        _newest = (spec, fields)
    return fields
