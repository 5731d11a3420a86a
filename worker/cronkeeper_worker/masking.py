"""PURE: known values are replaced in a stream of bytes, wherever its pieces are cut.

A value is looked for as it is, in BASE64 (also in the middle of a longer text that was encoded whole, as in an
`Authorization: Basic` header), quoted for a URL, and quoted as JSON quotes. Whatever a form covers becomes one `***`;
two that overlap become one, too. Values shorter than 6 bytes stay: they would mask half of the output.

Imports nothing but what the runner has anyway.
"""

from __future__ import annotations

import binascii
import json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

MASK = b"***"
MIN_BYTES = 6
#: A line of a longer value (a key in PEM) is masked on its own from this length on.
MIN_LINE_BYTES = 16
#: A place where a pattern may begin is found by so many of its first bytes.
_PROBE = 8
_UNQUOTED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-~")


def patterns(values: Iterable[bytes]) -> tuple[bytes, ...]:
    """Return every form in which the values are masked, each once."""
    found: set[bytes] = set()
    for value in values:
        texts = {value, value.strip()}
        texts.update(line.strip() for line in value.splitlines() if len(line.strip()) >= MIN_LINE_BYTES)
        for text in texts:
            if len(text) >= MIN_BYTES:
                found |= _forms(text)
    return tuple(sorted(found))


def _forms(text: bytes) -> set[bytes]:
    forms = {text, *_base64(text)}
    for unquoted in (_UNQUOTED, _UNQUOTED | {ord("/")}):
        quoted = b"".join(bytes([byte]) if byte in unquoted else b"%%%02X" % byte for byte in text)
        lower = b"".join(bytes([byte]) if byte in unquoted else b"%%%02x" % byte for byte in text)
        forms |= {quoted, lower, quoted.replace(b"%20", b"+"), lower.replace(b"%20", b"+")}
    forms.add(json.dumps(text.decode(errors="surrogateescape"), ensure_ascii=False)[1:-1].encode(errors="replace"))
    forms.add(json.dumps(text.decode(errors="replace"))[1:-1].encode())
    return forms


def _base64(text: bytes) -> set[bytes]:
    """Return the text encoded, and the part of it that stands in any longer text that is encoded with it inside."""
    whole = binascii.b2a_base64(text, newline=False)
    found = {whole, whole.rstrip(b"=")}
    for before in range(3):
        encoded = binascii.b2a_base64(b"\0" * before + text, newline=False)
        # Only characters all of whose six bits come from the text.
        found.add(encoded[-(-before * 8 // 6) : (before + len(text)) * 8 // 6])
    return found | {form.replace(b"+", b"-").replace(b"/", b"_") for form in found}


class Masker:
    """Masks one stream. `feed` returns what can be said already; the rest comes with later bytes, or with `finish`.

    What is held back is the beginning of a pattern, and less than the longest of them.
    """

    __slots__ = ("_covered", "_held", "_patterns")

    def __init__(self, forms: Iterable[bytes]) -> None:
        self._patterns = tuple(form for form in forms if form)
        self._held = b""
        #: Bytes at the beginning of what is held that a `***` stands for already.
        self._covered = 0

    def feed(self, data: bytes) -> bytes:
        """Take the next bytes of the stream; return masked ones."""
        if not self._patterns:
            return data
        text = self._held + data
        return self._say(text, min(self._open(text, form) for form in self._patterns))

    def finish(self) -> bytes:
        """Return what was held back: the stream is at its end."""
        return self._say(self._held, len(self._held))

    def _say(self, text: bytes, cut: int) -> bytes:
        """Return the text up to the cut, masked; hold the rest."""
        said: list[bytes] = []
        at = self._covered
        for start, end in self._covers(text):
            if start >= cut:
                break
            if start >= at:
                said += [text[at:start], MASK]
            at = max(at, end)
        if at < cut:
            said.append(text[at:cut])
        self._held = text[cut:]
        self._covered = max(0, at - cut)
        return b"".join(said)

    def _covers(self, text: bytes) -> list[tuple[int, int]]:
        """Return what is to be masked, in order; pieces that overlap follow each other."""
        found = []
        for form in self._patterns:
            start = text.find(form)
            while start >= 0:
                found.append((start, start + len(form)))
                start = text.find(form, start + 1)
        return sorted(found)

    def _open(self, text: bytes, form: bytes) -> int:
        """Return where the form begins at the end of the text, not yet complete; its length if nowhere."""
        first = max(0, len(text) - len(form) + 1)
        start = text.find(form[:_PROBE], first)
        while start >= 0:
            if form.startswith(text[start:]):
                return start
            start = text.find(form[:_PROBE], start + 1)
        for start in range(max(first, len(text) - _PROBE + 1), len(text)):
            if form.startswith(text[start:]):
                return start
        return len(text)
