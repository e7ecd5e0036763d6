"""`GET /v1/models` and `GET /v1/models/{model}`: what the key may call."""

from collections.abc import Callable

from starlette.requests import Request

from cappella.errors import UnknownModel
from cappella.gateway import model_list
from cappella.gateway.plain_routes import PlainRoutes
from cappella.gateway.reply_types import ModelEntry, Models
from cappella.gateway.state import GatewayState
from cappella.vocabulary import STRATEGIES


def create_router(current: Callable[[], GatewayState]) -> PlainRoutes:
    router = PlainRoutes()

    @router.get("/v1/models")
    async def models(request: Request) -> Models:
        state = current()
        names = model_list.callable_names(state.config, await state.authenticate(request, "run"))
        return {
            "object": "list",
            "data": [model_list.entry(state.config, name, state.created) for name in names],
            "links": {"next": None},
            "total_count": len(names),
            "strategies": {name: traits.summary for name, traits in STRATEGIES.items()},
        }

    # A name may have slashes, and servers decode %2F before the path is matched.
    @router.get("/v1/models/{model:path}")
    async def one(request: Request) -> ModelEntry:
        state, model = current(), request.path_params["model"]
        names = model_list.callable_names(state.config, await state.authenticate(request, "run"))
        if model not in names:
            raise UnknownModel(model, names)
        return model_list.entry(state.config, model, state.created)

    return router
