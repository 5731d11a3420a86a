"""Requests that two parsers might read differently: one table for everything that stands behind HAProxy.

In each, `HIDDEN` is where a second request begins that only one of two parsers would see. `MARK` in a path is told from
all others by the test.
"""

from __future__ import annotations

from dataclasses import dataclass

MARK = b"/smuggled-MARK"
HIDDEN = b"GET " + MARK + b" HTTP/1.1\r\nHost: x\r\nX-Auth-User: root\r\nX-Forwarded-For: 9.9.9.9\r\n\r\n"
_LINE = b"POST /preview HTTP/1.1\r\nHost: x\r\n"


@dataclass(frozen=True)
class Attack:
    """What is sent on one connection. None of it may make a request for MARK reach an API server.

    Save where HAProxy itself reads one (`agreed`): a request of its own, with an id, and without what it strips.
    """

    id: str
    data: bytes
    agreed: bool = False


def _post(id_: str, headers: bytes, body: bytes, *, agreed: bool = False) -> Attack:
    return Attack(id_, _LINE + headers + b"\r\n" + body, agreed)


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n0\r\n\r\n" % (len(data), data)


_LENGTH = b"Content-Length: %d\r\n" % len(b"0\r\n\r\n" + HIDDEN)
#: Read as chunks, the body ends before HIDDEN; read by its length, after it.
_ENDED = b"0\r\n\r\n" + HIDDEN
#: Spellings of a header that one parser takes for chunks, another not.
_ENCODINGS = {
    "an encoding that nobody knows": b"Transfer-Encoding: xchunked",
    "a blank before the colon": b"Transfer-Encoding : chunked",
    "a tab before the colon": b"Transfer-Encoding\t: chunked",
    "a tab after the colon": b"Transfer-Encoding:\tchunked",
    "a vertical tab": b"Transfer-Encoding:\x0bchunked",
    "a NUL before the value": b"Transfer-Encoding: \x00chunked",
    "quotes": b'Transfer-Encoding: "chunked"',
    "a list that ends in identity": b"Transfer-Encoding: chunked, identity",
    "a list that begins with identity": b"Transfer-Encoding: identity, chunked",
    "chunks twice in a list": b"Transfer-Encoding: chunked, chunked",
    "chunks in two headers": b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
    "chunks and another encoding": b"Transfer-Encoding: chunked\r\nTransfer-Encoding: x",
    "another encoding and chunks": b"Transfer-Encoding: x\r\nTransfer-Encoding: chunked",
    "an empty encoding first": b"Transfer-Encoding:\r\nTransfer-Encoding: chunked",
    "a comma after it": b"Transfer-Encoding: chunked,",
    "a parameter": b"Transfer-Encoding: chunked;q=1",
    "a folded line": b"Transfer-Encoding:\r\n chunked",
    "a header folded into the one before": b"X: y\r\n Transfer-Encoding: chunked",
    "a bare LF before it": b"X: y\nTransfer-Encoding: chunked",
    "a bare CR before it": b"X: y\rTransfer-Encoding: chunked",
    "a CR in its name": b"Transfer\r-Encoding: chunked",
    "an underscore": b"Transfer_Encoding: chunked",
    "a Kelvin sign in its value": "Transfer-Encoding: chun\u212aed".encode(),
    "capitals": b"TRANSFER-ENCODING: CHUNKED",
    "gzip before chunks": b"Transfer-Encoding: gzip, chunked",
}
#: No header of chunks to anybody: the length holds, and what follows its three bytes is the next request to everybody.
_NO_ENCODINGS = ("an underscore", "a header folded into the one before")
#: A line may end by LF alone, to HAProxy 2.6; it hands on chunks of its own.
_AGREED_CHUNKS = ("a bare LF after the size", "a bare LF in an extension")
_LENGTHS = {
    "two that differ": b"Content-Length: 0\r\n" + _LENGTH,
    "two that differ, the other way round": _LENGTH + b"Content-Length: 0\r\n",
    "two in a list that differ": b"Content-Length: 0, %d\r\n" % len(_ENDED),
    "a sign": b"Content-Length: +0\r\n",
    "a minus": b"Content-Length: -1\r\n",
    "hexadecimal": b"Content-Length: 0x0\r\n",
    "an underscore in the number": b"Content-Length: 0_0\r\n",
    "digits of another script": "Content-Length: \u0660\r\n".encode(),
    "a blank in the number": b"Content-Length: 0 0\r\n",
    "a blank before the colon of a length": b"Content-Length : 0\r\n",
    "more than 64 bits": b"Content-Length: 18446744073709551616\r\n",
    "a length that is empty": b"Content-Length: \r\n",
    "a fraction": b"Content-Length: 0.0\r\n",
    "a folded length": b"Content-Length:\r\n 0\r\n",
    "a NUL after the length": b"Content-Length: 0\x00\r\n",
}
_CHUNKS = {
    "a size of more than 64 bits": b"10000000000000000\r\n" + HIDDEN,
    "a size beyond what a sign bit leaves": b"ffffffffffffffff\r\n" + HIDDEN,
    "a size with a sign": b"+0\r\n\r\n" + HIDDEN,
    "a size with 0x": b"0x0\r\n\r\n" + HIDDEN,
    "a size with an underscore": b"0_0\r\n\r\n" + HIDDEN,
    "an empty size": b"\r\n\r\n" + HIDDEN,
    "a size with a blank before it": b" 0\r\n\r\n" + HIDDEN,
    "a bare LF after the size": b"0\n\n" + HIDDEN,
    "a bare LF in an extension": b"2;a\nxx\r\n0\r\n\r\n" + HIDDEN,
    "a bare CR in an extension": b"0;a\rb\r\n\r\n" + HIDDEN,
    "a chunk that is longer than it says": b"1\r\nab\r\n0\r\n\r\n" + HIDDEN,
    "a chunk without its line's end": b"2\r\nxx0\r\n\r\n" + HIDDEN,
    "letters for a size": b"zz\r\n" + HIDDEN,
    "a trailer that is a request line": b"0\r\n" + HIDDEN,
    "a trailer that says chunks": b"2\r\n{}\r\n0\r\nTransfer-Encoding: chunked\r\nContent-Length: 9\r\n\r\n",
}
_OTHERS = [
    Attack("a request line ended by a bare LF", b"GET /healthz HTTP/1.1\nHost: x\n\nX: y\r\n" + HIDDEN[:-2] + b"\r\n"),
    Attack("a NUL in the path", b"GET /healthz\x00 HTTP/1.1\r\nHost: x\r\nX: " + HIDDEN),
    Attack("a NUL in a header", b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: a\x00b\r\nY: " + HIDDEN),
    Attack("a NUL in a header's name", b"GET /healthz HTTP/1.1\r\nHost: x\r\nX\x00: " + HIDDEN),
    Attack("a CR in a value", b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: a\r\r\n" + HIDDEN),
    Attack("a header without a colon", b"GET /healthz HTTP/1.1\r\nHost: x\r\nnonsense\r\nX: " + HIDDEN),
    Attack("a header without a name", b"GET /healthz HTTP/1.1\r\nHost: x\r\n: y\r\nX: " + HIDDEN),
    Attack("a blank first line of headers", b"GET /healthz HTTP/1.1\r\n Host: x\r\nX: " + HIDDEN),
    Attack("two blanks in the request line", b"GET  /healthz  HTTP/1.1\r\nHost: x\r\nX: " + HIDDEN),
    Attack("a blank in the path", b"GET /healthz?a " + MARK + b" HTTP/1.1\r\nHost: x\r\n\r\n"),
    Attack("HTTP/0.9", b"GET " + MARK + b"\r\n"),
    Attack("HTTP/0.9 with a version", b"GET " + MARK + b" HTTP/0.9\r\n\r\n"),
    Attack("HTTP/1.0 with chunks", _LINE.replace(b"1.1", b"1.0") + b"Transfer-Encoding: chunked\r\n\r\n" + _ENDED),
    Attack("HTTP/1.10", b"GET " + MARK + b" HTTP/1.10\r\nHost: x\r\n\r\n"),
    Attack("HTTP/3.0", b"GET " + MARK + b" HTTP/3.0\r\nHost: x\r\n\r\n", agreed=True),
    Attack("HTTP/2 without being asked", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + HIDDEN),
    Attack("an upgrade to HTTP/2", b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\n"
           b"Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\nX: " + HIDDEN),
    Attack("a tunnel", b"CONNECT " + MARK[1:] + b":80 HTTP/1.1\r\nHost: x\r\n\r\n" + HIDDEN),
    Attack("two hosts", b"GET " + MARK + b" HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n"),
    Attack("another host in the target", b"GET http://y" + MARK + b" HTTP/1.1\r\nHost: x\r\n\r\n"),
    Attack("a body of a GET", b"GET /healthz HTTP/1.1\r\nHost: x\r\n" + _LENGTH + b"\r\n" + _ENDED),
    Attack("connection headers that take the length away", _LINE + b"Connection: close, content-length\r\n" + _LENGTH
           + b"\r\n" + _ENDED),
    Attack("a body that HEAD has not", b"HEAD /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" + HIDDEN),
]  # fmt: skip

ATTACKS: list[Attack] = [
    _post("CL.TE", _LENGTH + b"Transfer-Encoding: chunked\r\n", _ENDED),
    _post("TE.CL", b"Transfer-Encoding: chunked\r\n" + b"Content-Length: 3\r\n", _chunk(HIDDEN)),
    *(_post(f"CL.TE with {name}", _LENGTH + spelt + b"\r\n", _ENDED) for name, spelt in _ENCODINGS.items()),
    *(
        _post(
            f"TE.CL with {name}",
            spelt + b"\r\nContent-Length: 3\r\n",
            _chunk(HIDDEN),
            agreed=name in _NO_ENCODINGS,
        )
        for name, spelt in _ENCODINGS.items()
    ),
    *(_post(f"a length with {name}", spelt, _ENDED) for name, spelt in _LENGTHS.items()),
    *(
        _post(f"chunks with {name}", b"Transfer-Encoding: chunked\r\n", body, agreed=name in _AGREED_CHUNKS)
        for name, body in _CHUNKS.items()
    ),
    *_OTHERS,
]
