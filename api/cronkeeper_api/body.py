"""Bodies of requests: JSON read strictly (each key once, no NaN, bounded depth), or a form with a job and its file."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn

from flask import g, request
from werkzeug.datastructures import FileStorage
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge

from cronkeeper.errors import FieldError
from cronkeeper_api.problems import ProblemError
from cronkeeper_manager.service import Upload
from cronkeeper_manager.service.rules import shown

MAX_DEPTH = 20
JSON_TYPES = ("application/json", "application/merge-patch+json")
FORM_TYPE = "multipart/form-data"


@dataclass(frozen=True, slots=True)
class Body:
    """A body: its JSON value, and the file that came with it. `given` is False when there was no body at all."""

    value: Any
    upload: Upload | None = None
    given: bool = True


def read_body(*, optional: bool = False) -> Body:
    """Return the request's body. Raises ProblemError: malformed, unsupported-media-type or too-large."""
    kind = (request.mimetype or "").lower()
    if kind == FORM_TYPE:
        return _read_form()
    raw = _raw()
    if optional and not raw:
        return Body({}, given=False)
    if kind not in JSON_TYPES:
        raise ProblemError("unsupported-media-type", f"{shown(kind) or 'no content type'} is not application/json")
    return Body(parse_json(raw))


def body_digest() -> str:
    """Return what two requests with one Idempotency-Key are compared by; the boundary of a form does not count."""
    digest = hashlib.sha256(request.query_string)
    if (request.mimetype or "").lower() == FORM_TYPE:
        _load_form()
        parts = [(name, "", value.encode(errors="replace")) for name, value in request.form.items(multi=True)]
        for name, file in request.files.items(multi=True):
            parts.append((name, file.filename or "", file.read()))
            file.seek(0)
        for name, filename, data in parts:
            for item in ((name or "").encode(errors="replace"), filename.encode(errors="replace"), data):
                digest.update(len(item).to_bytes(8) + item)
    else:
        digest.update(b"\0" + _raw())
    return digest.hexdigest()


def parse_json(raw: bytes) -> Any:
    """Return the value of strict JSON. Raises ProblemError (malformed) that says where or which key."""
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as exc:
        raise _malformed(f"not UTF-8 (at byte {exc.start + 1})") from exc
    if not text.strip():
        raise _malformed("the body is empty")
    try:
        value = json.loads(
            text, object_pairs_hook=_pairs, parse_constant=_constant, parse_float=_float, parse_int=_integer
        )
    except json.JSONDecodeError as exc:
        raise _malformed(f"not JSON: {exc.msg} (line {exc.lineno}, column {exc.colno})") from exc
    except RecursionError as exc:
        raise _malformed(f"nested deeper than {MAX_DEPTH} levels") from exc
    if _deeper_than(value, MAX_DEPTH):
        raise _malformed(f"nested deeper than {MAX_DEPTH} levels")
    return value


def _raw() -> bytes:
    with _reading():
        raw = request.get_data(cache=True)
    # A body that comes in chunks has no length to be refused by: it is cut off at the limit without a word.
    if request.content_length is None and len(raw) >= (request.max_content_length or sys.maxsize):
        raise RequestEntityTooLarge
    return raw


def _load_form() -> None:
    with _reading():
        request.form  # noqa: B018 - the first look reads the body


@contextmanager
def _reading() -> Iterator[None]:
    """What the server throws while it reads a body (a broken chunk, a client that left) has no class in common."""
    try:
        with g.slow.reading():
            yield
    except (HTTPException, ProblemError):
        raise
    except Exception as exc:
        raise _malformed("the body broke off, or its chunks are not as HTTP has them") from exc


def _read_form() -> Body:
    _load_form()
    # A part need not have a name at all: it is None then, which nothing can be compared with.
    unknown = sorted({name or "" for name in (*request.form, *request.files)} - {"job", "executable"})
    faults = [
        FieldError(shown(name), "is not a part of this form", "the parts are job and executable") for name in unknown
    ]
    texts: list[bytes | str] = [*request.form.getlist("job"), *(file.read() for file in request.files.getlist("job"))]
    files = request.files.getlist("executable")
    if len(texts) != 1:
        faults.append(FieldError("job", f"is needed exactly once, found {len(texts)} times", "its fields as JSON"))
    if len(files) != 1:
        faults.append(
            FieldError(
                "executable", f"is needed exactly once as a file, found {len(files)} times", "-F executable=@run.sh"
            )
        )
    if faults:
        raise ProblemError("malformed", "the form's parts are not as expected", faults)
    raw = texts[0].encode(errors="surrogatepass") if isinstance(texts[0], str) else texts[0]
    return Body(parse_json(raw), _upload(files[0]))


def _upload(file: FileStorage) -> Upload:
    # Some clients send a whole path; only its last part is a name.
    name = (file.filename or "").replace("\\", "/").rpartition("/")[2]
    return Upload(name, file.read())


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) == len(pairs):
        return found
    seen: set[str] = set()
    twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
    raise _malformed("a key stands there twice", FieldError(shown(twice), "stands there twice", "keep one of them"))


def _constant(text: str) -> NoReturn:
    raise _malformed(f"{text} is not a JSON number")


def _float(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise _malformed("a number is too large")
    return value


def _integer(text: str) -> int:
    if len(text) > 20:
        raise _malformed("a number is too large")
    return int(text)


def _deeper_than(value: Any, depth: int) -> bool:
    level = [value]
    for _ in range(depth):
        level = [
            item
            for here in level
            if isinstance(here, dict | list)
            for item in (here.values() if isinstance(here, dict) else here)
            if isinstance(item, dict | list)
        ]
        if not level:
            return False
    return True


def _malformed(detail: str, *errors: FieldError) -> ProblemError:
    return ProblemError("malformed", detail, errors)
