"""What the endpoints of batches have in common: who asks, and what that key may see."""

from collections.abc import Callable
from dataclasses import dataclass

from starlette.requests import Request

from cappella.auth.keys import Key, Reader, Scope
from cappella.batch.store import BatchStore
from cappella.batch.types import Api, Batch, Purpose, StoredFile
from cappella.config import Batch as Settings
from cappella.errors import UnknownRun
from cappella.gateway.batch_types import BatchObject
from cappella.gateway.formats.batches import batch_object
from cappella.gateway.request import Stream
from cappella.gateway.state import GatewayState
from cappella.telemetry.audit.actions import OperatorActions

HOW_TO_TURN_ON = "set server.batch in its config, such as `batch: {folder: batches}`"
FILE_PURPOSES: tuple[Purpose, ...] = ("batch", "batch_output")
"""The files that /v1/files shows."""
LINES_TYPE = "application/jsonl"


@dataclass(frozen=True, slots=True)
class Access:
    """The batches of a server to a request with this key. A key with the scope `admin` sees those of all."""

    state: GatewayState
    key: Key | None
    store: BatchStore
    settings: Settings
    actions: OperatorActions

    @property
    def key_id(self) -> str | None:
        return self.key.id if self.key else None

    @property
    def reader(self) -> Reader:
        return Reader.of(self.key)

    async def admit(self) -> None:
        """Count the request itself, which creates or uploads something. Raises RateLimited."""
        await self.state.gatekeeper.admit(self.key, [])

    async def file(self, file_id: str, *purposes: Purpose) -> StoredFile:
        """A file, by default one that /v1/files shows. Raises UnknownRun."""
        found = await self.store.files.find(file_id, self.reader, *(purposes or FILE_PURPOSES))
        if found is None:
            raise UnknownRun(f"No file {file_id[:80]!r} found.", "file_id", "file_not_found")
        return found

    async def batch(self, batch_id: str, *apis: Api) -> Batch:
        """A batch of one of these APIs. Raises UnknownRun."""
        tried = [await self.store.find(batch_id, self.reader, api) for api in apis]
        found = next(filter(None, tried), None)
        if found is None:
            raise UnknownRun(f"No batch {batch_id[:80]!r} found.", "batch_id", "batch_not_found")
        return found

    def shown(self, batch: Batch) -> BatchObject:
        """In the form of OpenAI's API."""
        return batch_object(batch, self.store.progress.told(batch, self.settings.when))

    def content(self, file: StoredFile) -> Stream:
        """The file's content as a reply."""
        pieces = self.store.files.pieces(file.id)
        headers = {"Content-Length": str(file.size_bytes), "Content-Disposition": "attachment"}
        timeout_s = self.state.config.server.client_timeout_s
        return Stream(pieces, pieces, timeout_s, media_type=LINES_TYPE, headers=headers)


async def access(
    current: Callable[[], GatewayState], actions: OperatorActions, request: Request, *scopes: Scope
) -> Access:
    """Who asks. Raises Unauthorized and Forbidden, and UnknownRun on a server without batches."""
    state = current()
    return access_of(state, await state.authenticate(request, *scopes), actions)


def access_of(state: GatewayState, key: Key | None, actions: OperatorActions) -> Access:
    """As `access`, for a key that is known."""
    settings = state.config.server.batch
    if state.batches is None or settings is None:
        raise UnknownRun(f"This server takes no batches: {HOW_TO_TURN_ON}.", code="batches_not_kept")
    return Access(state, key, state.batches, settings, actions)
