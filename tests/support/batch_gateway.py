"""The real gateway over scripted engines with batches, which are put into its store without the endpoints."""

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from cappella.auth.keys import Reader
from cappella.batch.store import BatchStore
from cappella.batch.types import Batch
from cappella.config import Config
from cappella.config.server import Batch as BatchSection
from cappella.gateway.reload import ReadConfig
from support.fake_engines import MEMBERS, FakeEngines, eventually, gateway_config, last_message, serving
from support.scripted_engine import Json
from support.stored_batches import content_of

ALL = Reader.of(None)


def batch_config(folder: Path, sequences: int = 64, section: Json | None = None, **ensemble: Any) -> Config:
    """The gateway's config with batches."""
    return with_batches(gateway_config(**{"analysis": "off", **ensemble}), folder, sequences, section)


def with_batches(config: Config, folder: Path, sequences: int = 64, section: Json | None = None) -> Config:
    """The config with models whose weights are in `folder`, beside the batches."""
    if not (folder / "weights").exists():
        (folder / "weights").mkdir()
        write_weights(folder, "first")
    own = {"weights": folder / "weights", "max_num_seqs": sequences}
    models = {name: model.model_copy(update=own) for name, model in config.models.items()}
    batch = BatchSection(folder=folder / "batches", **(section or {}))
    return config.model_copy(update={"models": models, "server": config.server.model_copy(update={"batch": batch})})


def write_weights(folder: Path, text: str) -> None:
    (folder / "weights" / "model.safetensors").write_text(text)


@asynccontextmanager
async def answering(
    fake_engines: FakeEngines, config: Config, reread: ReadConfig | None = None
) -> AsyncIterator[BatchStore]:
    """The store of a gateway that answers its rows. One after another in the same folder is a restart."""
    async with serving(fake_engines, config, reread):
        store = fake_engines.reloader.state.batches
        assert store
        yield store


async def now(store: BatchStore, batch: Batch) -> Batch:
    found = await store.find(batch.id, ALL, batch.api)
    assert found
    return found


async def until(store: BatchStore, batch: Batch, **fields: Any) -> Batch:
    """The batch once it has these fields."""
    found = await now(store, batch)

    async def differs() -> bool:
        nonlocal found
        found = await now(store, batch)
        return any(getattr(found, name) != value for name, value in fields.items())

    for _ in range(2000):
        if not await differs():
            return found
        await eventually(lambda: False, 0.01)
    raise AssertionError(f"{found} never had {fields}")


async def ends(store: BatchStore, batch: Batch) -> tuple[dict[str, Json], dict[str, Json]]:
    """The replies, and the errors, of a batch that has ended, by custom id; no row is in both, or twice."""
    found = await until(store, batch, status="completed")
    lines = [await content_of(store, each) if each else [] for each in (found.output_file_id, found.error_file_id)]
    assert max(Counter(line["custom_id"] for part in lines for line in part).values()) == 1
    replies, errors = ({line["custom_id"]: line["response"] for line in part} for part in lines)
    return replies, errors


def asked(fake_engines: FakeEngines, name: str) -> list[str]:
    """What an engine was asked, in the order of the calls."""
    return [last_message(body) for body in fake_engines.servers[name].bodies]


def calls_of_members(fake_engines: FakeEngines) -> Counter[str]:
    """How often each prompt was sent to a member."""
    return Counter(f"{name}: {text}" for name in MEMBERS for text in asked(fake_engines, name))
