"""What a config may say of the gateway, and of the memory that models share."""

import re
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from re import Pattern
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ByteSize,
    Field,
    IPvAnyAddress,
    field_validator,
    model_validator,
)

from cappella.config.fields import Bytes
from cappella.config.options import Seconds
from cappella.types import Frozen


class Tls(Frozen):
    """PEM files. With `client_ca` only clients with a certificate that it signed are served."""

    certificate: Path
    private_key: Path
    client_ca: Path | None = None


def _compiled(text: object) -> object:
    try:
        compiled = re.compile(text) if isinstance(text, str) else None
    except re.error as error:
        raise ValueError(f"{text!r} is no regular expression ({error})") from error
    if compiled and compiled.match(""):
        raise ValueError(f"{text!r} matches where there is nothing")
    return text


class Audit(Frozen):
    """One JSON line for each run and each call, hash-chained. A file of `max_bytes` is put aside and another begun.

    With `log_content` a line has the conversation and the answer, every match of `redact` replaced. With `required`
    nothing runs while the file cannot be written to.
    """

    file: Path
    log_content: bool = False
    redact: tuple[Annotated[Pattern[str], BeforeValidator(_compiled)], ...] = ()
    required: bool = False
    max_bytes: Annotated[Bytes, Field(ge=1)] | None = None


class Runs(Frozen):
    """Traces of runs, read at /api/runs; with `content` the conversation and all answers too."""

    file: Path
    retention_days: Annotated[float, Field(gt=0)] = 30
    content: bool = False


def _origin(text: str) -> str:
    """As browsers write it, since it is compared letter by letter."""
    default_port = re.match(r"(https://.*:443|http://.*:80)$", text)
    if default_port or not re.fullmatch(r"[a-z][a-z0-9+.-]*://[^\sA-Z/?#@*]+", text):
        how = "scheme, host and, unless it is the usual one, the port, in small letters, such as https://chat.lan"
        raise ValueError(f"{text!r} is no origin as browsers write it: that is {how}")
    return text


def _host_name(text: str) -> str:
    if not re.fullmatch(r"[a-z0-9._-]+", text):
        raise ValueError(f"{text!r} is no host's name: write it in small letters, with no scheme, port or star")
    return text


Origin = Annotated[str, AfterValidator(_origin)]
HostName = Annotated[str, AfterValidator(_host_name)]


class Tracing(Frozen):
    """Where the trace of each run goes, as OpenTelemetry's protocol over HTTP; needs the extra `otel`.

    `endpoint` is a collector's base address, http://127.0.0.1:4318 or a socket such as unix:/run/otel.sock. Of the
    traces that no caller began, `share` are kept; a caller's own `traceparent` says itself whether.
    """

    endpoint: str
    share: Annotated[float, Field(ge=0, le=1)] = 1.0

    @field_validator("endpoint")
    @classmethod
    def _is_an_address(cls, endpoint: str) -> str:
        problem = f"{endpoint!r} is no address of a collector: http://127.0.0.1:4318, or unix:/run/otel.sock"
        try:
            parts = urlsplit(endpoint)
            usable = parts.path.startswith("/") if parts.scheme == "unix" else bool(parts.hostname and parts.port)
        except ValueError as error:
            raise ValueError(problem) from error
        if parts.scheme not in ("http", "https", "unix") or not usable or parts.username or parts.query:
            raise ValueError(problem)
        return endpoint

    @property
    def host(self) -> str | None:
        """Whom it connects to; None for a socket of this machine."""
        parts = urlsplit(self.endpoint)
        return None if parts.scheme == "unix" else parts.hostname


class Server(Frozen):
    """Where clients are listened to. Of the runs of an ensemble, and of the calls of a model, `max_waiting` may queue.

    Of these `max_waiting_per_key` may be of one key; without it as many as there are places that no other key wants.
    A client that for `client_timeout_s` neither sends the rest of its body nor takes what is sent to it is left.
    When it is told to stop, what is under way has `drain_s` to end by itself.
    Images come inside a request, or, named as `file:///...`, from `image_folder`.
    `keys` is a file of keys (see `cappella keys`); without one everybody who reaches the port may do everything.
    Of what ran nothing is kept but counts, unless `audit` or `runs` says so.
    Without keys, or with `allowed_hosts`, it answers only to addresses, `localhost`, `host` and `allowed_hosts`. Pages in
    browsers may call it from `cors_origins` alone.
    Our processes connect to loopback and to the addresses in `may_reach`, and to nothing else. With `log_format` json
    all that `serve` says are lines of JSON, with one for every request and every run.
    """

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    max_body_bytes: Bytes = ByteSize(4 << 20)
    max_waiting: Annotated[int, Field(ge=1)] = 64
    max_waiting_per_key: Annotated[int, Field(ge=1)] | None = None
    client_timeout_s: Seconds = 60.0
    drain_s: Seconds = 30.0
    log_dir: Path | None = None
    image_folder: Path | None = None
    log_format: Literal["text", "json"] = "text"
    tracing: Tracing | None = None
    keys: Path | None = None
    audit: Audit | None = None
    runs: Runs | None = None
    allowed_hosts: tuple[HostName, ...] = ()
    cors_origins: tuple[Origin, ...] = ()
    may_reach: tuple[IPvAnyAddress, ...] = ()
    tls: Tls | None = None
    allow_open: bool = False

    @model_validator(mode="after")
    def _guarded(self) -> "Server":
        lacks = [name for name, value in (("keys", self.keys), ("tls", self.tls)) if value is None]
        if lacks and not self.allow_open and not self.loopback:
            what = {
                "keys": "anybody who reaches it may use every model",
                "tls": "prompts, answers and keys are readable",
            }
            means = " and ".join(what[name] for name in lacks)
            problem = f"host {self.host!r} is not loopback, and lacks {' and '.join(lacks)}: {means}"
            raise ValueError(f"{problem}. Set them, or allow_open: true if that is meant")
        return self

    @model_validator(mode="after")
    def _shares_of_the_queue(self) -> "Server":
        if self.max_waiting_per_key is None:
            return self
        if self.keys is None:
            raise ValueError("max_waiting_per_key means nothing without keys: set them, or leave it out")
        if self.max_waiting_per_key > self.max_waiting:
            raise ValueError(f"max_waiting_per_key is more than max_waiting, which is {self.max_waiting}: lower it")
        return self

    @property
    def loopback(self) -> bool:
        return _is_loopback(self.host)

    def may_connect_to(self, host: str) -> bool:
        """Whether the guard of our processes lets them: see sealing/guard.py. It has no names looked up."""
        return _is_loopback(host) or _address(host) in self.may_reach


def _is_loopback(host: str) -> bool:
    address = _address(host)
    return host == "localhost" or (address is not None and address.is_loopback)


def _address(host: str) -> IPv4Address | IPv6Address | None:
    """None for a name."""
    try:
        return ip_address(host)
    except ValueError:
        return None


class Placement(Frozen):
    """How models share memory: at most `memory_bytes` of each GPU, or of this machine's memory where there is none.

    With `swap`, a panel that does not fit at once takes turns; judges stay where they are. With `mps`, engines on one
    GPU compute at the same time, under a CUDA Multi-Process Service of their own.
    """

    memory_bytes: Annotated[Bytes, Field(ge=1 << 20)] | None = None
    swap: bool = False
    mps: bool = False
