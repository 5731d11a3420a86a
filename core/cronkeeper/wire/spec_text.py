"""PURE: a spec as canonical JSON, which a job's row and its signed task both hold: made once for one spec."""

from __future__ import annotations

from cronkeeper.domain.job import JobSpec, spec_to_dict
from cronkeeper.wire.codec import dumps

#: So many texts are kept, and none longer than that: 2 MB.
_KEPT, _LONGEST = 512, 4096
#: By identity, which the spec that is kept beside its text makes sure of: nobody changes a spec.
_texts: dict[int, tuple[JobSpec, str]] = {}


def spec_text(spec: JobSpec) -> str:
    """Return the canonical JSON of a spec, defaults included."""
    kept = _texts.get(id(spec))
    if kept is not None and kept[0] is spec:
        return kept[1]
    text = dumps(spec_to_dict(spec)).decode()
    if len(text) <= _LONGEST:
        if len(_texts) >= _KEPT:
            _texts.clear()
        _texts[id(spec)] = (spec, text)
    return text
