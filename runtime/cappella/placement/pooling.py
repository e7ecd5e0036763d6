"""What a plan knows of models that write nothing: whether a model suits its task, and what it keeps and reads at once."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cappella.config import Model
from cappella.config.engine_args import canonical
from cappella.errors import ConfigError
from cappella.placement.own_context import OwnContext

_ENCODERS = frozenset("bert roberta xlm-roberta xlm-roberta-xl camembert modernbert nomic_bert new gte".split())
"""The `model_type` of those that vLLM serves."""
_SCORER = "ForSequenceClassification"


def is_encoder(config: Mapping[str, Any]) -> bool:
    """Whether each token reads those after it, too: then nothing is cached, and a text is read in one step."""
    return config.get("model_type") in _ENCODERS or config.get("is_causal") is False


def writes(config: Mapping[str, Any]) -> bool:
    """Whether the model generates text, as far as config.json tells."""
    return not is_encoder(config) and not _kind(config).endswith(_SCORER)


def _kind(config: Mapping[str, Any]) -> str:
    return str(next(iter(config.get("architectures") or ()), ""))


def reads_whole_texts(model: Model, config: Mapping[str, Any]) -> bool:
    """Whether one step must have room for the longest text: without a cache, or where all tokens make the embedding."""
    if model.task == "generate":
        return False
    pooling = _json(model.weights / "1_Pooling" / "config.json")
    return is_encoder(config) or (bool(pooling) and not pooling.get("pooling_mode_lasttoken"))


def own_context(model: Model, config: Mapping[str, Any], own: OwnContext) -> OwnContext:
    """The context of a model with this task, as vLLM reads it: some files beside config.json lower it."""
    if model.task == "generate":
        return own
    limits: list[Any] = [own.max_tokens]
    if config.get("position_embedding_type") == "absolute":
        limits.append(_json(model.weights / "tokenizer_config.json").get("model_max_length"))
    limits.append(_json(model.weights / "sentence_bert_config.json").get("max_seq_length"))
    least = min(int(limit) for limit in limits if isinstance(limit, int | float))
    return OwnContext(min(own.default_tokens, least), least)


def require_suited(name: str, model: Model, config: Mapping[str, Any]) -> None:
    """Raises ConfigError if the model cannot do its task, where config.json tells."""
    kind = _kind(config)
    if "hf_overrides" in map(canonical, model.engine_args):
        return
    if model.task == "generate" and not writes(config):
        tasks = "reward or rerank" if kind.endswith(_SCORER) else "embed"
        raise ConfigError(f"models.{name}", f"{kind or 'this model'} writes no text", f"Set task: {tasks}")
    if model.task in ("rerank", "reward") and kind:
        _require_scorer(name, model, config, kind)
    if model.kv_cache_bytes is not None and is_encoder(config):
        raise ConfigError(f"models.{name}.kv_cache_bytes", "this model is an encoder and has no KV cache", "Remove it")


def _require_scorer(name: str, model: Model, config: Mapping[str, Any], kind: str) -> None:
    at = f"models.{name}.task"
    if not kind.endswith(_SCORER):
        hint = f"Use a model whose architecture ends in {_SCORER}, or make it one with engine_args.hf_overrides"
        raise ConfigError(at, f"task: {model.task} needs a model that scores, and this is a {kind}", hint)
    labels = config.get("num_labels") or len(config.get("id2label") or "12")
    if labels != 1:
        problem = f"task: {model.task} needs one score for a text, and this model has {labels} labels"
        raise ConfigError(at, problem, "Use a model with one label")
    if model.task == "reward" and model.weights.exists() and not _has_template(model):
        problem = "task: reward reads conversations, and this model has no chat template"
        raise ConfigError(at, problem, "Use task: rerank, which reads pairs of texts")


def _has_template(model: Model) -> bool:
    in_tokenizer = bool(_json(model.weights / "tokenizer_config.json").get("chat_template"))
    files = any((model.weights / each).exists() for each in ("chat_template.jinja", "chat_template.json"))
    return in_tokenizer or files or "chat_template" in map(canonical, model.engine_args)


def _json(path: Path) -> Mapping[str, Any]:
    """The object in a file; empty if there is none."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
