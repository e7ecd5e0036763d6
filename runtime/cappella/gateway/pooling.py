"""Embeddings, reranking and scores: `/v1/embeddings`, `/v1/rerank`, `/v1/score` and `/classify`, of models with a task."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from cappella.config.limits import Limits
from cappella.engines import refusals
from cappella.errors import EngineBroke, RequestError
from cappella.gateway.formats.policy import Reading
from cappella.gateway.formats.pooling import (
    ClassifyRequest,
    EmbeddingsRequest,
    PoolingRequest,
    RerankRequest,
    ScoreRequest,
)
from cappella.gateway.model_reply import OwnForm
from cappella.gateway.plain_routes import PlainRoutes
from cappella.gateway.receive import received
from cappella.gateway.request import Incoming
from cappella.gateway.routes import EnsembleRequest, answer_request
from cappella.gateway.state import GatewayState
from cappella.gateway.validation import parse
from cappella.threads import off_loop_if_large
from cappella.types import Json


@dataclass(frozen=True, slots=True)
class PoolingApi:
    """The form of a request, and the path of the engine that answers it. vLLM warns of some paths below /v1."""

    request: type[PoolingRequest]
    engine_path: str


APIS: Mapping[str, PoolingApi] = {
    "/v1/embeddings": PoolingApi(EmbeddingsRequest, "/v1/embeddings"),
    "/v1/rerank": PoolingApi(RerankRequest, "/rerank"),
    "/v1/score": PoolingApi(ScoreRequest, "/score"),
    "/classify": PoolingApi(ClassifyRequest, "/classify"),
}


def create_router(current: Callable[[], GatewayState]) -> PlainRoutes:
    router = PlainRoutes()
    for path, api in APIS.items():
        router.add(path, _endpoint(current, api), methods=["POST"])
    return router


def _endpoint(current: Callable[[], GatewayState], api: PoolingApi) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        async with received(current, request) as incoming:
            return await answer_pooling(current(), incoming, api)

    return answer


async def answer_pooling(state: GatewayState, incoming: Incoming, api: PoolingApi) -> Response:
    """The reply of the model that the request names. Raises RequestError, and as `answer_request`."""
    asked = await off_loop_if_large(incoming.work_chars, _asked, api, incoming, state.config.server.limits)
    hides = incoming.wire.get("return_documents") is False
    return await answer_request(state, asked, _WithoutDocuments() if hides else None)


def _asked(api: PoolingApi, incoming: Incoming, limits: Limits) -> Incoming:
    """The request as the engine gets it. Raises RequestError for another shape, and for more than the limits allow."""
    parsed = parse(api.request, Reading(incoming.wire))
    for size, most, what, limit in (
        (parsed.texts, limits.inputs, "texts", "inputs"),
        (parsed.chars, limits.input_chars, "characters in all", "input_chars"),
    ):
        if size > most:
            raise RequestError(
                f"The request has {size} {what}; it may have {most} (server.limits.{limit}).", code="too_large"
            )
    wire = parsed.sent(incoming.wire)
    body = incoming.body if wire is incoming.wire else orjson.dumps(wire)
    return replace(incoming, path=api.engine_path, wire=wire, body=body)


class _WithoutDocuments(OwnForm):
    """See `routes.Form`: a ranking by the documents' indexes alone."""

    def of_ensemble(self, parsed: Any) -> EnsembleRequest:
        raise AssertionError("an ensemble ranks no documents")

    async def of_model(self, data: AsyncGenerator[bytes, None], head: dict[str, Any]) -> AsyncGenerator[bytes, None]:
        async with aclosing(data):
            reply = b"".join([piece async for piece in data])
        if head["status_code"] >= 400:
            raise refusals.from_reply(head["status_code"], reply)
        yield await off_loop_if_large(len(reply), _without_documents, reply)


def _without_documents(reply: bytes) -> bytes:
    try:
        body: Json = orjson.loads(reply)
        results = [{name: value for name, value in each.items() if name != "document"} for each in body["results"]]
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise EngineBroke("the engine returned no ranking") from error
    return orjson.dumps({**body, "results": results})
