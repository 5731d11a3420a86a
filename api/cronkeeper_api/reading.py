"""From a request's JSON to what the use cases take, with every fault at its field."""

from __future__ import annotations

import base64
import binascii
import difflib
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from cronkeeper.domain.calendars import Blackout, calendar_from_dict
from cronkeeper.domain.instants import parse_rfc3339
from cronkeeper.domain.job import (
    CRON_DST,
    NO_LIMITS,
    NO_RETRY,
    JobSpec,
    JobType,
    Limits,
    default_on_worker_loss,
    spec_to_dict,
)
from cronkeeper.domain.retry import Retry
from cronkeeper.domain.schedule import Dst
from cronkeeper.domain.secret_env import plain_env, secrets_from_dict
from cronkeeper.domain.server_fields import SERVER_FIELDS
from cronkeeper.errors import FieldError, ValidationFailedError
from cronkeeper_api.body import Body
from cronkeeper_api.models import JobInput, RetryInput
from cronkeeper_manager.service import Draft, Upload, rules

M = TypeVar("M", bound=BaseModel)

_BASE64_HINT = "send the file in BASE64 without line breaks (base64 -w0 FILE), or a URL of the object store"
#: Stands in for the executable of a form, whose file is in a part of its own.
_IN_FORM = "form:"


def read_model(model: type[M], value: Any) -> M:
    """Return the model's instance. Raises ValidationFailedError with a fault for every bad field."""
    faults: list[FieldError] = []
    found = _validate(model, value, faults)
    if found is None:
        raise ValidationFailedError(faults)
    return found


def read_draft(body: Body, *, run_as_allowed: Iterable[str]) -> Draft:
    """Return the job of a body. Raises ValidationFailedError if its shape is wrong; its meaning is not checked then
    either, only field by field, so that all faults come out at once."""
    value = body.value
    if body.upload is not None and isinstance(value, dict):
        if "executable" in value:
            fault = FieldError("executable", "is given twice, as a field and as a file", "leave the field out")
            raise ValidationFailedError([fault])
        value = {**value, "executable": _IN_FORM}
    return _draft(value, body.upload, run_as_allowed)


def read_drafts(values: list[dict[str, Any]], *, namespace: str, run_as_allowed: Iterable[str]) -> list[Draft]:
    """Return the jobs of a list; the faults of all of them come out at once, as `jobs[3].schedule`."""
    allowed = tuple(run_as_allowed)
    drafts, faults = [], []
    for index, value in enumerate(values):
        try:
            drafts.append(_draft({"namespace": namespace, **value}, None, allowed))
        except ValidationFailedError as exc:
            faults += [FieldError(f"jobs[{index}].{e.field}", e.message, e.hint) for e in exc.errors]
    if faults:
        raise ValidationFailedError(faults)
    return drafts


def read_patch(spec: JobSpec, body: Body, *, run_as_allowed: Iterable[str]) -> Draft:
    """Return the draft that a merge patch (RFC 7396) makes of a spec: null takes a field back to its default."""
    patch = body.value
    if not isinstance(patch, dict):
        raise ValidationFailedError([FieldError("", "is not a JSON object", "send the fields to change")])
    merged = merge(input_of(spec), patch)
    if merged.get("type") == JobType.COMMAND and "filename" not in patch:
        merged.pop("filename", None)
    if body.upload is not None:
        merged.pop("executable", None)
        if "filename" not in patch:
            merged.pop("filename", None)
    return read_draft(Body(merged, body.upload), run_as_allowed=run_as_allowed)


def input_of(spec: JobSpec) -> dict[str, Any]:
    """Return the spec as its user could have posted it."""
    return {field: value for field, value in spec_to_dict(spec).items() if field not in SERVER_FIELDS}


def merge(target: Any, patch: Any) -> Any:
    """RFC 7396."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge(merged.get(key), value)
    return merged


def _draft(value: Any, upload: Upload | None, run_as_allowed: Iterable[str]) -> Draft:
    faults: list[FieldError] = []
    model = _validate(JobInput, value, faults)
    if model is None:
        raise ValidationFailedError(faults + _faults_of_fields(value, upload, run_as_allowed, faults))
    upload, more = read_executable(model.executable, model.type, model.filename, upload)
    return Draft(_spec(model), upload, tuple(more))


def _faults_of_fields(
    value: Any, upload: Upload | None, run_as_allowed: Iterable[str], faults: list[FieldError]
) -> list[FieldError]:
    """Check what can be checked of a job whose shape is wrong somewhere."""
    if not isinstance(value, Mapping):
        return []
    found = rules.check_fields(value, run_as_allowed=run_as_allowed)
    named = {fault.field for fault in faults}
    if not named & {"executable", "type", "filename"}:
        kind, filename = JobType(value["type"]), value.get("filename")
        found += read_executable(value["executable"], kind, filename, upload)[1]
    return list({fault.field: fault for fault in reversed(found) if fault.field not in named}.values())


def read_executable(
    text: str, kind: JobType, filename: str | None, upload: Upload | None
) -> tuple[Upload | None, list[FieldError]]:
    """Return the file that came with a job (None for a command or a URL), and what is wrong with it."""
    if kind is JobType.COMMAND:
        if upload is not None:
            return None, [FieldError("executable", "is a file, but the type is command", "make it script or binary")]
        return None, []
    if upload is None:
        if "://" in text:
            return None, []
        try:
            data = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            return None, [FieldError("executable", "is neither BASE64 nor a URL", _BASE64_HINT)]
        if base64.b64encode(data) != text.encode("ascii", "replace"):
            return None, [FieldError("executable", "is not canonical BASE64", _BASE64_HINT)]
        upload = Upload(filename or "", data)
    name = filename or upload.filename
    faults = []
    if not upload.data:
        faults.append(FieldError("executable", "is an empty file", _BASE64_HINT))
    if not name:
        faults.append(FieldError("filename", f"is required for a {kind}", "name the file, as in backup.sh"))
    elif not rules.FILENAME.fullmatch(name):
        faults.append(
            FieldError("filename", f"{name[:40]!a} is not a file's name", "write letters, digits, '.', '_', '-'")
        )
    return Upload(name, upload.data), faults


def _spec(model: JobInput) -> JobSpec:
    given = model.model_fields_set
    return JobSpec(
        executable=model.executable,
        schedule=model.schedule,
        type=model.type,
        namespace=model.namespace,
        name=model.name,
        description=model.description,
        owner=model.owner,
        timezone=model.timezone,
        args=tuple(model.args),
        env=plain_env(model.env),
        secrets=secrets_from_dict(model.env, {}),
        run_as=model.run_as,
        timeout_s=model.timeout_s,
        retry=_retry(model.retry) if "retry" in given else NO_RETRY,
        pause_after_failures=model.pause_after_failures,
        concurrency=model.concurrency,
        misfire=model.misfire,
        grace_s=model.grace_s,
        delivery=model.delivery,
        on_worker_loss=model.on_worker_loss or default_on_worker_loss(model.delivery),
        dst=Dst(model.dst.gap, model.dst.fold) if "dst" in given else CRON_DST,
        jitter_s=model.jitter_s,
        starts_at_ms=None if model.starts_at is None else parse_rfc3339(model.starts_at),
        ends_at_ms=None if model.ends_at is None else parse_rfc3339(model.ends_at),
        selector=model.selector,
        shards=model.shards,
        limits=Limits(model.limits.cpu, model.limits.memory_mb, model.limits.output_kb)
        if "limits" in given
        else NO_LIMITS,
        labels=dict(model.labels),
        filename=model.filename,
        calendar=None if model.calendar is None else calendar_from_dict(model.calendar.model_dump(mode="json")),
        blackouts=tuple(Blackout(parse_rfc3339(one.begin), parse_rfc3339(one.end)) for one in model.blackouts),
    )


def _retry(retry: RetryInput) -> Retry:
    longest = max(NO_RETRY.max_backoff_s, retry.backoff_s) if retry.max_backoff_s is None else retry.max_backoff_s
    return Retry(retry.limit, retry.backoff_s, longest, retry.jitter_s, retry.elsewhere)


# ------------------------------------------------------------------------------------------ from pydantic to faults


def _validate(model: type[M], value: Any, faults: list[FieldError]) -> M | None:
    if not isinstance(value, dict):
        faults.append(FieldError("", "is not a JSON object", "send an object of fields"))
        return None
    try:
        return model.model_validate(value)
    except ValidationError as exc:
        found = [_fault(model, error) for error in exc.errors(include_url=False)]
        # A union reports one fault for each of its members: the first is enough.
        faults += [fault for index, fault in enumerate(found) if fault.field not in {f.field for f in found[:index]}]
        return None


def _fault(model: type[BaseModel], error: ErrorDetails) -> FieldError:
    field = _path(error["loc"])
    match error["type"]:
        case "missing":
            return FieldError(field, "is required", _description(model, error["loc"]))
        case "extra_forbidden":
            return _unknown(model, error["loc"], field)
        case "enum" | "literal_error":
            expected = str(error.get("ctx", {}).get("expected", ""))
            allowed = [word.strip("'") for word in expected.replace(" or ", ", ").split(", ")]
            given = error["input"]
            close = difflib.get_close_matches(given[:64].lower(), allowed, n=1) if isinstance(given, str) else []
            return FieldError(field, f"is none of {', '.join(allowed)}", f"did you mean {close[0]}?" if close else "")
    hint = str(error.get("ctx", {}).get("hint", "")) or _description(model, error["loc"])
    return FieldError(field, error["msg"].removeprefix("Input ").replace("valid ", ""), hint)


def _unknown(model: type[BaseModel], loc: tuple[int | str, ...], field: str) -> FieldError:
    name = str(loc[-1])
    if len(loc) == 1 and model is JobInput and name in SERVER_FIELDS:
        return FieldError(field, "is set by the server", "leave it out")
    known = [info.alias or name for name, info in _model_at(model, loc[:-1]).model_fields.items()]
    close = difflib.get_close_matches(name[:64].lower(), known, n=1)
    return FieldError(
        field, "is not a field here", f"did you mean {close[0]}?" if close else f"known are {', '.join(known)}"
    )


def _description(model: type[BaseModel], loc: tuple[int | str, ...]) -> str:
    info = _model_at(model, loc[:-1]).model_fields.get(str(loc[-1])) if loc else None
    return (info.description or "") if info is not None else ""


def _model_at(model: type[BaseModel], loc: tuple[int | str, ...]) -> type[BaseModel]:
    """Follow a location down to the model that stands there; stay where it leads into a plain map or list."""
    for part in loc:
        info = model.model_fields.get(part) if isinstance(part, str) else None
        for option in _options(info.annotation) if info is not None else ():
            if isinstance(option, type) and issubclass(option, BaseModel):
                model = option
    return model


def _options(annotation: Any) -> list[Any]:
    if isinstance(annotation, types.UnionType) or typing.get_origin(annotation) in (typing.Union, list):
        return [inner for option in typing.get_args(annotation) for inner in _options(option)]
    return [annotation]


def _path(loc: tuple[int | str, ...]) -> str:
    text = ""
    for part in loc:
        if isinstance(part, int):
            text += f"[{part}]"
        elif part != "[key]":
            text += f".{rules.shown(part)}" if text else rules.shown(part)
    return text
