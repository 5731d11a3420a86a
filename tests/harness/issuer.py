"""An OpenID Connect issuer for tests: keys, tokens good and forged, and a server that publishes the keys."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import ssl
import threading
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.x509.oid import NameOID

ISSUER, AUDIENCE = "https://login.example.net", "cronkeeper"
PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


def b64(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode()


def part(value: Any) -> str:
    """One part of a token; a text is taken as it is."""
    return b64(value.encode() if isinstance(value, str) else json.dumps(value).encode())


@cache
def rsa_key(number: int = 0, bits: int = 2048) -> rsa.RSAPrivateKey:
    """A key that is made once: it takes long."""
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


@dataclass
class Issuer:
    """Keys by their `kid`, and tokens signed with them."""

    now_s: Callable[[], float]
    name: str = ISSUER
    keys: dict[str, PrivateKey] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.keys = self.keys or {
            "rsa": rsa_key(),
            "ec": ec.generate_private_key(ec.SECP256R1()),
            "ed": ed25519.Ed25519PrivateKey.generate(),
        }

    def claims(self, **changes: Any) -> dict[str, Any]:
        """Claims that are right; a change to `...` leaves one out."""
        now = int(self.now_s())
        claims = {"iss": self.name, "aud": AUDIENCE, "sub": "anna", "iat": now, "exp": now + 600, "groups": ["ops"]}
        return {name: value for name, value in (claims | changes).items() if value is not ...}

    def token(self, kid: str = "ed", header: Mapping[str, Any] | None = None, **changes: Any) -> str:
        """A token that is right in all but what is changed."""
        return self.sign(
            kid,
            {"alg": ALGORITHMS[type(self.keys[kid])], "typ": "JWT", "kid": kid} | dict(header or {}),
            self.claims(**changes),
        )

    def sign(self, kid: str, header: Any, claims: Any) -> str:
        """A token of these very parts, signed by the key's own algorithm, whatever the header says."""
        text = f"{part(header)}.{part(claims)}"
        return f"{text}.{b64(signature(self.keys[kid], text.encode()))}"

    def jwks(self) -> dict[str, Any]:
        return {"keys": [jwk_of(kid, key) for kid, key in self.keys.items()]}

    def public_pem(self, kid: str) -> bytes:
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        return self.keys[kid].public_key().public_bytes(serialization.Encoding.PEM, form)


ALGORITHMS: dict[type, str] = {}


def signature(key: PrivateKey, text: bytes) -> bytes:
    match key:
        case rsa.RSAPrivateKey():
            return key.sign(text, padding.PKCS1v15(), hashes.SHA256())
        case ec.EllipticCurvePrivateKey():
            r, s = decode_dss_signature(key.sign(text, ec.ECDSA(hashes.SHA256())))
            return r.to_bytes(32, "big") + s.to_bytes(32, "big")
        case ed25519.Ed25519PrivateKey():
            return key.sign(text)


def hs256(secret: bytes, header: Mapping[str, Any], claims: Mapping[str, Any]) -> str:
    """A token whose signature whoever knows the secret could make."""
    text = f"{part(header)}.{part(claims)}"
    return f"{text}.{b64(hmac.new(secret, text.encode(), hashlib.sha256).digest())}"


def jwk_of(kid: str, key: PrivateKey) -> dict[str, Any]:
    public: Any = key.public_key()
    match key:
        case rsa.RSAPrivateKey():
            numbers = public.public_numbers()
            size = (numbers.n.bit_length() + 7) // 8
            found = {"kty": "RSA", "n": b64(numbers.n.to_bytes(size, "big")), "e": b64(numbers.e.to_bytes(3, "big"))}
        case ec.EllipticCurvePrivateKey():
            point = public.public_numbers()
            found = {"kty": "EC", "crv": "P-256", "x": b64(point.x.to_bytes(32, "big"))}
            found["y"] = b64(point.y.to_bytes(32, "big"))
        case ed25519.Ed25519PrivateKey():
            found = {"kty": "OKP", "crv": "Ed25519", "x": b64(public.public_bytes_raw())}
    return {"kid": kid, "use": "sig", "alg": ALGORITHMS[type(key)], **found}


ALGORITHMS.update({type(rsa_key()): "RS256", type(ec.generate_private_key(ec.SECP256R1())): "ES256"})
ALGORITHMS[type(ed25519.Ed25519PrivateKey.generate())] = "EdDSA"


@dataclass
class Published:
    """A server on loopback, what it answers, and what it was asked. `answer` may be replaced while it runs."""

    url: str
    asked: list[str] = field(default_factory=list)
    answer: Callable[[BaseHTTPRequestHandler], None] = lambda _handler: None


def answering(body: Callable[[], Any], status: int = 200, **headers: str) -> Callable[[BaseHTTPRequestHandler], None]:
    """Answer with JSON (or with bytes as they are)."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        found = body()
        raw = found if isinstance(found, bytes) else json.dumps(found).encode()
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", str(len(raw)))
        handler.end_headers()
        handler.wfile.write(raw)

    return answer


@contextlib.contextmanager
def published(body: Callable[[], Any], certificate: Path | None = None) -> Iterator[Published]:
    """Serve the keys, over https with the certificate (and its key in the same file) if there is one."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found.asked.append(self.path)
            with contextlib.suppress(OSError):
                found.answer(self)

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            pass  # a client that does not like our certificate hangs up

    server = Server(("127.0.0.1", 0), Handler)
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    scheme = "http" if certificate is None else "https"
    found = Published(f"{scheme}://127.0.0.1:{server.server_address[1]}/keys")
    found.answer = answering(body)
    thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.02))
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def make_certificate(path: Path, address: str = "127.0.0.1") -> Path:
    """Write a self-signed certificate with its key; return its path."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "issuer")])
    begin = datetime(2020, 1, 1, tzinfo=UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(7).not_valid_before(begin).not_valid_after(begin + timedelta(days=36_500))
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address(address))]), critical=False)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    certificate = builder.sign(key, hashes.SHA256())
    pem = serialization.Encoding.PEM
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.write_bytes(secret + certificate.public_bytes(pem))
    return path
