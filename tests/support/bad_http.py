"""Malformed HTTP requests: truncated, corrupted, wrongly framed, with odd headers, a wrong key or a wrong path."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random


@dataclass(frozen=True, slots=True)
class RawRequest:
    """The parts of a request, assembled by `wire`, so that each part can be corrupted."""

    method: bytes
    path: bytes
    body: bytes
    headers: tuple[bytes, ...] = ()
    framing: bytes | None = None

    def wire(self, key: str) -> bytes:
        framing = b"Content-Length: %d" % len(self.body) if self.framing is None else self.framing
        own = () if any(each.lower().startswith(b"authorization") for each in self.headers) else (_bearer(key),)
        kind = (
            ()
            if any(each.lower().startswith(b"content-type") for each in self.headers)
            else (b"Content-Type: application/json",)
        )
        lines = (b"Host: 127.0.0.1", b"Connection: close", *own, *kind, *self.headers, framing)
        return (
            b"%b %b HTTP/1.1\r\n" % (self.method, self.path)
            + b"\r\n".join(line for line in lines if line)
            + b"\r\n\r\n"
            + self.body
        )


def _bearer(key: str) -> bytes:
    return f"Authorization: Bearer {key}".encode()


def _truncated(rng: Random, raw: RawRequest) -> RawRequest:
    return replace(raw, body=raw.body[: rng.randrange(len(raw.body) + 1)])


def _flipped(rng: Random, raw: RawRequest) -> RawRequest:
    body = bytearray(raw.body)
    for _ in range(rng.choice((1, 3, 40)) if body else 0):
        body[rng.randrange(len(body))] = rng.randrange(256)
    return replace(raw, body=bytes(body))


def _wrapped(rng: Random, raw: RawRequest) -> RawRequest:
    """A duplicate key, another encoding, extra bytes before or after, or no JSON at all."""
    body, text = raw.body, raw.body.decode()
    ways = (
        body.replace(b"{", b'{"model": "cat", "model": "ann", ', 1),
        b"\xef\xbb\xbf" + body,
        text.encode("utf-16"),
        body + rng.choice((b"}", b"\x00", b"{}", b"\xff\xfe")),
        body.replace(b"Say", b"S\xff\xc0y", 1),
        rng.choice((b"", b"null", b"[]", b"1", b'"x"', b"{" * 3000, b"[" * 90_000, b"-", b"\x00" * 50, b"PK\x03\x04")),
        b'{"model": "ann", "messages": ' + b"[" * 500 + b"]" * 500 + b"}",
        b'{"model": "ann", "x": ' + b"9" * 5000 + b"}",
        body.ljust(199_000),
        body.ljust(250_000),
    )
    return replace(raw, body=rng.choice(ways))


def _misframed(rng: Random, raw: RawRequest) -> RawRequest:
    size = len(raw.body)
    chunked = b"Transfer-Encoding: chunked"
    framing, body = rng.choice(
        (
            (b"Content-Length: %d" % (size + 40), raw.body),
            (b"Content-Length: %d" % (size // 2), raw.body),
            (b"Content-Length: -1", raw.body),
            (b"Content-Length: 99999999999999999999", raw.body),
            (b"Content-Length: x", raw.body),
            (b"Content-Length: 3\r\nContent-Length: 5", raw.body),
            (b"", raw.body),
            (chunked, b"%x\r\n%b\r\n0\r\n\r\n" % (size, raw.body)),
            (chunked, b"zz\r\n" + raw.body),
            (chunked, b"%x\r\n%b\r\n" % (size + 9, raw.body)),
            (chunked, b"fffffffffffffffff\r\n" + raw.body),
            (chunked + b"\r\nContent-Length: 3", raw.body),
            (b"Transfer-Encoding: gzip, identity", raw.body),
        )
    )
    return replace(raw, framing=framing, body=body)


def _headed(rng: Random, raw: RawRequest) -> RawRequest:
    header = rng.choice(
        (
            b"Content-Type: text/plain",
            b"Content-Type: application/json; charset=utf-16",
            b"Content-Type: \xff",
            b"Content-Encoding: gzip",
            b"Expect: 100-continue",
            b"Upgrade: websocket\r\nConnection: upgrade",
            b"X-Forwarded-For: 1.2.3.4\r\nX-Forwarded-Host: evil.example",
            b"Host: evil.example",
            b"Cookie: " + b"a=b; " * 500,
            b"X-Big: " + b"a" * 70_000,
            b"\r\n".join(b"X-%d: a" % i for i in range(200)),
            b": no name",
            b"No colon",
            b"X-Nul: a\x00b",
            b"X-Folded: a\r\n b",
            b"Range: bytes=0-",
        )
    )
    return replace(raw, headers=(*raw.headers, header))


def _unauthenticated(rng: Random, raw: RawRequest) -> RawRequest:
    """A request with a missing or wrong key."""
    header = rng.choice(
        (
            b"Authorization:",
            b"Authorization: Bearer",
            b"Authorization: Bearer ck_00000000_" + b"a" * 43,
            b"Authorization: Bearer " + b"\xe9\xff" * 20,
            b"Authorization: Basic cm9vdDpyb290",
            b"Authorization: Bearer " + b"_" * 5000,
            b"Authorization: Bearer ck_' OR '1'='1_x",
        )
    )
    return replace(raw, headers=(header,))


def _misdirected(rng: Random, raw: RawRequest) -> RawRequest:
    methods = b"GET GET GET PUT DELETE PATCH HEAD OPTIONS TRACE POST FOO post CONNECT".split()
    paths = (
        b"/ //v1/models /v1/models/ /v1/../v1/models /v1/%2e%2e/metrics /%00 /\xff * ? /v1/models?key=x /docs /openapi.json"
        b" /metrics /ready /health /v1/chat/completions%0d%0aX: /.env /v1/files http://evil.example/health /tokenize"
        b" /sleep?level=1 /v1/chat/completions/ /api/runs /api/runs?limit=1000 /api/runs?limit=-1 /api/runs?limit=1&limit=2"
        b" /v1/models/ann /v1/models/cappella%2Fdefault /v1/models/cappella/default/ /v1/models/%00 /v1/models/..%2f..%2fetc"
        b" /v1/models/%ff%fe /v1/v1/models/ann /api/v1/models /v1/messages/count_tokens/ /messages/count_tokens /detokenize"
        b" /api/tags /api/show /api/ps /api/version /v1/api/tags /api/chat/ /v1/responses/resp_0 /v1/responses/%00 /mcp"
        b" /v1/responses/resp_0/cancel /api/runs/run-0 /api/runs/%00 /api/runs/..%2f..%2fetc /api/runs/' /api/reload".split()
    )
    paths += [raw.path, b"/" + b"a" * 3000, b"/v1/models x"]
    return replace(raw, method=rng.choice([*methods, b""]), path=rng.choice(paths))


SPOIL_BYTES: tuple[Callable[[Random, RawRequest], RawRequest], ...] = (
    _truncated,
    _flipped,
    _wrapped,
    _wrapped,
    _misframed,
    _headed,
    _unauthenticated,
    _misdirected,
)
