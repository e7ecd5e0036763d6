"""The `placement` section of a config, and the Ray cluster in it."""

from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator, model_validator

from cappella.config.addresses import address_of
from cappella.config.fields import Bytes
from cappella.types import Frozen


class Ray(Frozen):
    """A Ray cluster whose nodes take the engines. `auto` is the one that this machine belongs to.

    `token_file` holds the cluster's token, by default the file that Ray reads itself.
    """

    address: str = "auto"
    token_file: Path | None = None

    @field_validator("address")
    @classmethod
    def _is_auto_or_a_socket(cls, address: str) -> str:
        host, colon, port = address.rpartition(":")
        if address != "auto" and not (colon and address_of(host.strip("[]")) and port.isdecimal()):
            raise ValueError(f"{address!r} is no address of a Ray cluster: write auto, or 10.0.0.1:6379")
        return address


class Placement(Frozen):
    """Memory sharing: at most `memory_bytes` of each GPU, or of the machine's memory if it has no GPU.

    With `swap`, models that do not fit at once are swapped in and out by turns; judges stay loaded. With `mps`, engines
    on one GPU compute concurrently under a CUDA Multi-Process Service started for them. With `sleepers_free_graphs`, a sleeping
    engine gives its CUDA graphs back, too, which nobody has tried on a GPU yet. With `ray`, engines run on the nodes of a cluster,
    each of whose addresses `server.may_reach` has.
    """

    memory_bytes: Annotated[Bytes, Field(ge=1 << 20)] | None = None
    swap: bool = False
    mps: bool = False
    sleepers_free_graphs: bool = False
    ray: Ray | None = None

    @model_validator(mode="after")
    def _what_a_cluster_lacks(self) -> "Placement":
        if given := [name for name in ("swap", "mps", "sleepers_free_graphs") if self.ray and getattr(self, name)]:
            raise ValueError(f"{given[0]} and ray exclude each other: it is for the GPUs of one machine")
        return self
