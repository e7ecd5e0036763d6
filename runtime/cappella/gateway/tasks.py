"""Which models and ensembles can answer an endpoint; a call of another is a 400 that names those that can."""

from collections.abc import Mapping
from typing import Any

from cappella.auth.keys import Key
from cappella.errors import RequestError
from cappella.gateway.formats.policy_pooling import POOLING
from cappella.gateway.model_list import PREFIX, callable_names
from cappella.gateway.state import GatewayState
from cappella.vocabulary import TASKS

MAX_NAMED = 8
_NO_PANEL = "/v1/completions"


def require_able(state: GatewayState, model: str, path: str, key: Key | None) -> None:
    """Raises RequestError if the model or ensemble exists, and cannot answer on this path of an engine's API."""
    if _can(state, model, path) or (model not in state.engines and path not in POOLING):
        return
    ensemble = model.removeprefix(PREFIX)
    if model not in state.engines and (not model.startswith(PREFIX) or ensemble not in state.config.ensembles):
        return
    if model in state.engines and path not in POOLING and state.engines[model].capabilities.writes:
        raise RequestError(f"The server of {model} does not support {path}: use /v1/chat/completions.", "model")
    able = [name for name in callable_names(state.config, key) if _can(state, state.config.meant_by(name), path)]
    instead = f"Call {', '.join(able[:MAX_NAMED])}" if able else "No model that this key may call can"
    raise RequestError(f"{_told(state, model, path)} {instead}.", "model", "wrong_task")


def sequences(path: str, wire: Mapping[str, Any], most: int) -> int:
    """The sequences that a call for embeddings or scores takes of an engine that has `most`: half of them, at most; else 0."""
    if path not in POOLING:
        return 0
    texts = wire.get("documents", wire.get("input"))
    several = isinstance(texts, list) and not isinstance(texts[0], int)
    return min(len(texts) if several and isinstance(texts, list) else 1, max(1, most // 2))


def _can(state: GatewayState, model: str, path: str) -> bool:
    if engine := state.engines.get(model):
        return engine.supports(path)
    return model.startswith(PREFIX) and path not in POOLING and path != _NO_PANEL


def _told(state: GatewayState, model: str, path: str) -> str:
    shown = path if path.startswith("/v1") or path == "/classify" else f"/v1{path}"
    if model not in state.engines:
        return f"{model} is an ensemble, which writes answers: it has no {shown}."
    task = state.engines[model].capabilities.task
    kind = f"has task: {task}, and " if task != "generate" else ""
    return f"{model} {kind}{TASKS[task].does}: it has no {shown}."
