"""What a node is asked to do: one start of a server."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Order:
    """`arguments` are the server's without where it listens; it asks for `key`.

    The files of the weights must have these `digests` on the node. On a CPU the server has `threads`, by default a share of the node's
    for each of `engines` there. `may_reach` are the addresses that the guard permits, `total_bytes` what each of its GPUs must have free.
    """

    version: str
    model: str
    arguments: Sequence[str]
    key: str
    folders: Sequence[str]
    digests: Mapping[str, str]
    eager: bool
    threads: int | None
    engines: int
    total_bytes: int
    may_reach: Sequence[str]
