"""HTTP to the API: one call, one answer or one error that says what to do."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode, urlsplit

from cronkeeper import __version__
from cronkeeper_cli.failures import EXIT_ERROR, EXIT_TIMED_OUT, CommandError, ProblemError
from cronkeeper_cli.settings import Settings

if TYPE_CHECKING:
    import urllib3

PAGE = 1000
_CONNECT_S = 5.0
_READ_S = 60.0
#: A follower hears nothing while its run prints nothing: this long is allowed, and the API ends the stream before.
_FOLLOW_S = 3700.0

Query = Mapping[str, str | list[str] | None]


@dataclass(frozen=True, slots=True)
class Answer:
    """A successful answer. Header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """Return the body as a value. Raises CommandError if it is no JSON: then something else listens there."""
        try:
            return json.loads(self.body)
        except ValueError:
            raise CommandError("the answer is not JSON; is this the URL of a Cronkeeper API?") from None


class Client:
    """One API. Calls are repeated by themselves only where that is safe: reads, and writes with an Idempotency-Key."""

    def __init__(self, settings: Settings) -> None:
        import urllib3

        self._settings = settings
        self._pool = urllib3.PoolManager(num_pools=1, ca_certs=settings.ca or None)

    def call(
        self,
        method: str,
        path: str,
        *,
        query: Query | None = None,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Return the answer. Raises ProblemError for a status from 400 on, CommandError when there was none."""
        data = None if body is None else json.dumps(body).encode()
        response = self._send(method, self._url(path, query), data, headers or {}, read_s=_READ_S)
        return Answer(response.status, _lower(response.headers), _checked(response))

    def get(self, path: str, query: Query | None = None) -> Any:
        """Return the JSON of a GET."""
        return self.call("GET", path, query=query).json()

    def post(self, path: str, body: Any, *, headers: Mapping[str, str] | None = None) -> Any:
        """Return the JSON of a POST."""
        return self.call("POST", path, body=body, headers=headers).json()

    def pages(self, path: str, query: Query, *, limit: int | None = None) -> Iterator[dict[str, Any]]:
        """Yield the items of all pages, at most `limit`; follows the `Link: …; rel="next"` header."""
        left = limit
        url: str | None = self._url(path, {**query, "limit": str(PAGE if limit is None else min(PAGE, limit))})
        while url is not None and (left is None or left > 0):
            response = self._send("GET", url, None, {}, read_s=_READ_S)
            items = Answer(response.status, _lower(response.headers), _checked(response)).json()
            if not isinstance(items, list):
                raise CommandError("the answer is not a list; is this the URL of a Cronkeeper API?")
            for item in items:
                if left is not None:
                    if left == 0:
                        return
                    left -= 1
                yield item
            following = next_link(_lower(response.headers).get("link", ""))
            url = self._absolute(following) if following and items else None

    def stream(self, path: str, query: Query) -> Iterator[bytes]:
        """Yield the body as it arrives. Raises as `call` does."""
        import urllib3

        response = self._send("GET", self._url(path, query), None, {}, read_s=_FOLLOW_S)
        if response.status >= 400:
            _checked(response)
        try:
            while chunk := response.read1(65536):
                yield chunk
        except urllib3.exceptions.HTTPError as exc:
            raise CommandError(f"the output broke off: {_reason(exc)}") from exc
        finally:
            response.release_conn()

    def _url(self, path: str, query: Query | None) -> str:
        given = {key: value for key, value in (query or {}).items() if value is not None}
        return f"{self._settings.url}{path}{'?' + urlencode(given, doseq=True) if given else ''}"

    def _absolute(self, link: str) -> str:
        # Only path and query are taken over: behind a proxy the API may not know its own outer address, and our token
        # must go nowhere else.
        parts = urlsplit(link)
        path = parts.path.removeprefix(urlsplit(self._settings.url).path)
        return f"{self._settings.url}{path}{'?' + parts.query if parts.query else ''}"

    def _send(
        self, method: str, url: str, data: bytes | None, headers: Mapping[str, str], *, read_s: float
    ) -> urllib3.BaseHTTPResponse:
        import urllib3

        sent = {"Accept": "application/json", "User-Agent": f"cronkeeper/{__version__}", **headers}
        if self._settings.token:
            sent["Authorization"] = f"Bearer {self._settings.token}"
        if data is not None:
            sent.setdefault("Content-Type", "application/json")
        repeatable = method == "GET" or "Idempotency-Key" in headers
        retries = urllib3.Retry(
            total=2,
            connect=2,
            read=2 if repeatable else 0,
            redirect=0,
            status=0,
            allowed_methods=None,
            backoff_factor=0.1,
        )
        try:
            return self._pool.request(
                method,
                url,
                body=data,
                headers=sent,
                preload_content=False,
                redirect=False,
                retries=retries,
                timeout=urllib3.Timeout(connect=_CONNECT_S, read=read_s),
            )
        except urllib3.exceptions.HTTPError as exc:
            root = _root(exc)
            # A refused connection is a kind of time-out in urllib3's eyes only.
            timed_out = isinstance(root, urllib3.exceptions.TimeoutError) and not isinstance(
                root, urllib3.exceptions.NewConnectionError
            )
            raise CommandError(
                f"no answer from {self._settings.url}: {_reason(exc)}\n"
                "  hint: CRONKEEPER_URL names the API; `cronkeeper standalone` starts one on this machine",
                EXIT_TIMED_OUT if timed_out else EXIT_ERROR,
            ) from exc


def segment(text: str) -> str:
    """Return one path segment, quoted: nothing that a user types leads to another path."""
    return quote(text, safe="")


def next_link(header: str) -> str | None:
    """Return the URL of `rel="next"` in a Link header, or None."""
    for part in header.split(","):
        target, _, params = part.strip().partition(";")
        if target.startswith("<") and target.endswith(">") and 'rel="next"' in params:
            return target[1:-1]
    return None


def _checked(response: urllib3.BaseHTTPResponse) -> bytes:
    import urllib3

    try:
        body = response.read()
    except urllib3.exceptions.HTTPError as exc:
        raise CommandError(f"the answer broke off: {_reason(exc)}") from exc
    finally:
        response.release_conn()
    if 300 <= response.status < 400:
        raise CommandError(
            f"the URL leads elsewhere ({response.headers.get('Location', '')}); redirects are not followed"
        )
    if response.status >= 400:
        try:
            problem = json.loads(body)
        except ValueError:
            problem = {}
        raise ProblemError(response.status, problem if isinstance(problem, dict) else {})
    return body


def _lower(headers: Mapping[str, str]) -> dict[str, str]:
    return {key.lower(): value for key, value in headers.items()}


def _root(exc: BaseException) -> BaseException:
    reason = getattr(exc, "reason", None)
    return _root(reason) if isinstance(reason, BaseException) else exc


def _reason(exc: BaseException) -> str:
    root = _root(exc)
    cause = root.__cause__ or root.__context__
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror
    return str(root).rpartition(": ")[2] or type(root).__name__
