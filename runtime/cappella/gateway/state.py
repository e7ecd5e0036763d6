"""The state that the endpoints share under one config."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from starlette.requests import Request

from cappella.auth.gatekeeper import Gatekeeper
from cappella.auth.keys import Key, Scope
from cappella.batch.store import BatchStore
from cappella.config import Config
from cappella.engines import cache_salt
from cappella.engines.base import EngineServer
from cappella.engines.deployment import Deployment
from cappella.ensemble.pipeline import Pipeline
from cappella.gateway.admission import Admission
from cappella.gateway.body_memory import BodyMemory
from cappella.gateway.drain import InFlight
from cappella.gateway.formats.sse import Describe
from cappella.gateway.ignored import IgnoredFields
from cappella.gateway.kept_responses import KeptResponses
from cappella.gateway.request import credentials
from cappella.placement.gpus import Gpu
from cappella.telemetry import records
from cappella.telemetry.metrics import Metrics
from cappella.telemetry.recorder import Recorder
from cappella.tools.servers import ToolServers


@dataclass(frozen=True, slots=True)
class GatewayState:
    """The parts that requests need under one config. `create_app` makes the first; each reload replaces it.

    `in_flight` are requests, `rows` those of batches.
    """

    deployment: Deployment
    pipeline: Pipeline
    tool_servers: ToolServers
    recorder: Recorder
    metrics: Metrics
    describe: Describe
    created: int
    gpus: Callable[[], Sequence[Gpu]]
    admission: Admission
    bodies: BodyMemory
    in_flight: InFlight
    rows: InFlight
    gatekeeper: Gatekeeper
    ignored: IgnoredFields
    responses: KeptResponses | None
    batches: BatchStore | None

    @property
    def config(self) -> Config:
        return self.deployment.config

    @property
    def engines(self) -> dict[str, EngineServer]:
        return self.deployment.engines

    async def authenticate(self, request: Request, *scopes: Scope) -> Key | None:
        """The request's key, or None on a server without keys. It needs one of `scopes`. Raises Unauthorized and Forbidden."""
        key = await self.gatekeeper.authenticate(*credentials(request), *scopes)
        self.act_for(key)
        return key

    def act_for(self, key: Key | None) -> None:
        """Let the record and the calls of this task be of this key."""
        records.current().key_id = key.id if key else None
        cache_salt.use(key.id if key and self.config.server.cache_salt == "per_key" else None)
