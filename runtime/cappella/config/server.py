"""The `server` section of a config."""

import re
from collections.abc import Mapping
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

from cappella.config.addresses import HostName, Origin, address_of, is_loopback
from cappella.config.fields import Bytes
from cappella.config.limits import Limits
from cappella.config.options import Seconds
from cappella.types import Frozen


class Tls(Frozen):
    """PEM files. With `client_ca`, clients need a certificate that it signed."""

    certificate: Path
    private_key: Path
    client_ca: Path | None = None


def _compiled(text: object) -> object:
    try:
        compiled = re.compile(text) if isinstance(text, str) else None
    except re.error as error:
        raise ValueError(f"{text!r} is not a regular expression ({error})") from error
    if compiled and compiled.match(""):
        raise ValueError(f"{text!r} matches the empty text")
    return text


class Audit(Frozen):
    """The audit log: one hash-chained JSON line per run and per call. The file is rotated at `max_bytes`.

    With `log_content`, lines contain the conversation and the answer, with every match of `redact` replaced. With
    `required`, requests are refused while the file cannot be written.
    """

    file: Path
    log_content: bool = False
    redact: tuple[Annotated[Pattern[str], BeforeValidator(_compiled)], ...] = ()
    required: bool = False
    max_bytes: Annotated[Bytes, Field(ge=1)] | None = None


class Runs(Frozen):
    """The store of run traces, served at /api/runs; with `content`, it has the conversations and all answers too.

    Then it also keeps responses (/v1/responses), unless a request sends `store: false`; of one key at most
    `max_background` may be waiting or running in the background. Of one key at most `max_bytes_per_key` are stored: beyond
    that its oldest runs and responses are deleted.
    """

    file: Path
    retention_days: Annotated[float, Field(gt=0)] = 30
    content: bool = False
    max_bytes_per_key: Annotated[Bytes, Field(ge=1)] = ByteSize(2 << 30)
    max_background: Annotated[int, Field(ge=1)] = 16


def _hours(text: str) -> str:
    time = "(?:[01][0-9]|2[0-3]):[0-5][0-9]"
    found = re.fullmatch(f"({time})-({time})", text)
    if not found or found[1] == found[2]:
        raise ValueError(f"{text!r} is not a part of the day: write it as 22:00-06:00")
    return text


class Batch(Frozen):
    """Batches (/v1/files, /v1/batches, /v1/messages/batches), kept in `folder`.

    While other requests are in flight, a batch takes `share` of an engine's sequences at most, and else all. It works
    from `when` to `when` only (as 22:00-06:00, local time), or always.
    One key may have files of `max_bytes_per_key` in all. Files, and batches that have ended, are deleted after `retention_days`.
    """

    folder: Path
    share: Annotated[float, Field(gt=0, le=1)] = 0.5
    when: Annotated[str, AfterValidator(_hours)] | None = None
    retention_days: Annotated[float, Field(gt=0)] = 30
    max_file_bytes: Annotated[Bytes, Field(ge=1)] = ByteSize(200 << 20)
    max_bytes_per_key: Annotated[Bytes, Field(ge=1)] = ByteSize(2 << 30)
    max_rows: Annotated[int, Field(ge=1)] = 50_000


Alias = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:@/-]{0,127}$")]


class Tracing(Frozen):
    """Export of run traces over OTLP/HTTP; needs the extra `otel`.

    `endpoint` is the collector's base URL, such as http://127.0.0.1:4318, or a socket such as unix:/run/otel.sock.
    `share` is the sampling ratio for requests without a `traceparent`; those with one decide for themselves.
    """

    endpoint: str
    share: Annotated[float, Field(ge=0, le=1)] = 1.0

    @field_validator("endpoint")
    @classmethod
    def _is_an_address(cls, endpoint: str) -> str:
        problem = f"{endpoint!r} is not the address of a collector: write http://127.0.0.1:4318, or unix:/run/otel.sock"
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
        """The collector's host; None for a Unix socket."""
        parts = urlsplit(self.endpoint)
        return None if parts.scheme == "unix" else parts.hostname


class Server(Frozen):
    """The gateway. Up to `max_waiting` runs of each ensemble, and calls of each model, may queue.

    Of these, one key may have `max_waiting_per_key`; by default as many as other keys leave free. A call waits for
    `max_queue_s` at most, from its arrival; a run for its `deadline_s`.
    Their bodies, and those that still arrive, may take `max_waiting_bytes` (by default 128 MiB, or four times
    `max_body_bytes` if that is more), those of one key or address half of it.
    A client that neither sends its body nor reads its response for `client_timeout_s` is disconnected.
    At most `max_connections` may be open (and half as many as the process may have files), and `max_connections_per_address` from one address; loopback addresses, where a
    reverse proxy may be, have no limit of their own.
    On shutdown, running requests have `drain_s` to finish.
    `limits` are those on one request.
    Fields of requests that are not known are ignored and named in the reply; `unknown_fields: refuse` makes them a 400.
    Images are sent inside a request, or named as `file:///...` if they are in `image_folder`.
    `keys` is a key file (see `cappella keys`); without one, anybody who reaches the port may do everything.
    With `cache_salt: per_key`, engines share cached prompts only between requests of one key: else a key could find out
    what others ask from its count of cached tokens. `off` shares them between all keys, which saves time on common prompts.
    With `mcp`, agents find the tools of `cappella mcp` at `/mcp`, if the SDK is installed: they do nothing that the key of the
    request may not do otherwise.
    `aliases` are further names of ensembles and models, such as those that a client sends and cannot be told to change.
    Only counts are recorded of requests, unless `audit` or `runs` is set, or they are in a batch (`batch`).
    Without keys, or with `allowed_hosts`, the Host header must be an IP address, `localhost`, `host` or one of
    `allowed_hosts`. Web pages may call it only from `cors_origins`.
    Cappella's processes connect only to loopback and to the addresses in `may_reach`. With `log_format: json`, the
    whole output of `serve` is JSON lines, including one per request and per run.
    """

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    max_body_bytes: Bytes = ByteSize(4 << 20)
    limits: Limits = Limits()
    max_waiting: Annotated[int, Field(ge=1)] = 64
    max_waiting_per_key: Annotated[int, Field(ge=1)] | None = None
    max_queue_s: Seconds = 300.0
    max_waiting_bytes: Annotated[Bytes, Field(ge=1)] | None = None
    max_connections: Annotated[int, Field(ge=1)] = 1024
    max_connections_per_address: Annotated[int, Field(ge=1)] = 128
    client_timeout_s: Seconds = 60.0
    drain_s: Seconds = 30.0
    log_dir: Path | None = None
    image_folder: Path | None = None
    unknown_fields: Literal["ignore", "refuse"] = "ignore"
    log_format: Literal["text", "json"] = "text"
    tracing: Tracing | None = None
    keys: Path | None = None
    cache_salt: Literal["per_key", "off"] = "per_key"
    aliases: Mapping[Alias, str] = {}
    audit: Audit | None = None
    runs: Runs | None = None
    batch: Batch | None = None
    allowed_hosts: tuple[HostName, ...] = ()
    cors_origins: tuple[Origin, ...] = ()
    may_reach: tuple[IPvAnyAddress, ...] = ()
    tls: Tls | None = None
    allow_open: bool = False
    mcp: bool = True

    @model_validator(mode="after")
    def _guarded(self) -> "Server":
        missing = [name for name, value in (("keys", self.keys), ("tls", self.tls)) if value is None]
        if missing and not self.allow_open and not self.loopback:
            risks = {
                "keys": "anybody who reaches it may use every model",
                "tls": "prompts, answers and keys can be read on the network",
            }
            risk = " and ".join(risks[name] for name in missing)
            problem = f"host {self.host!r} is not loopback, and {' and '.join(missing)} must be set: {risk}"
            raise ValueError(f"{problem}. Set them, or allow_open: true if this is intended")
        return self

    @model_validator(mode="after")
    def _shares_of_the_queue(self) -> "Server":
        if self.max_waiting_per_key is None:
            return self
        if self.keys is None:
            raise ValueError("max_waiting_per_key has no effect without keys: set server.keys, or remove it")
        if self.max_waiting_per_key > self.max_waiting:
            raise ValueError(f"max_waiting_per_key is larger than max_waiting, which is {self.max_waiting}: lower it")
        return self

    @model_validator(mode="after")
    def _room_for_bodies(self) -> "Server":
        if self.waiting_bytes < 2 * self.max_body_bytes:
            raise ValueError(f"max_waiting_bytes must be twice max_body_bytes, which is {self.max_body_bytes}, or more")
        return self

    @property
    def waiting_bytes(self) -> int:
        """`max_waiting_bytes`, or its default."""
        return self.max_waiting_bytes or max(128 << 20, 4 * self.max_body_bytes)

    @property
    def refuses_unknown_fields(self) -> bool:
        return self.unknown_fields == "refuse"

    @property
    def loopback(self) -> bool:
        return is_loopback(self.host)

    def may_connect_to(self, host: str) -> bool:
        """Whether sealing/guard.py permits connections to this host. Names other than localhost are refused."""
        return is_loopback(host) or address_of(host) in self.may_reach
