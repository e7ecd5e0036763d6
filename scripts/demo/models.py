"""Architectures, training and saving of the demo models."""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random

import torch
from transformers import (
    GemmaConfig,
    GemmaForCausalLM,
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from demo import adapters, agent, lessons, pooling, thinker, tokenizer, training
from demo.training import Recipe
from demo.world import Handbook

MEMBER = Recipe(steps=1600, batch_size=64, seed=11)
JUDGE = Recipe(steps=2800, batch_size=40, seed=17)
CLERK = Recipe(steps=1500, batch_size=40, seed=23)
RECIPES = {"conductor": JUDGE, "clerk": CLERK}
SHAPE = {
    "hidden_size": 128,
    "intermediate_size": 384,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "head_dim": 32,
    "tie_word_embeddings": True,
    "rope_theta": 10000.0,
}


def _llama(**settings: object) -> PreTrainedModel:
    return LlamaForCausalLM(LlamaConfig(num_hidden_layers=3, max_position_embeddings=1024, **settings))


def _qwen3(layers: int, positions: int, **settings: object) -> PreTrainedModel:
    return Qwen3ForCausalLM(Qwen3Config(num_hidden_layers=layers, max_position_embeddings=positions, **settings))


def _gemma(**settings: object) -> PreTrainedModel:
    return GemmaForCausalLM(GemmaConfig(num_hidden_layers=3, max_position_embeddings=1024, **settings))


ARCHITECTURES: dict[str, Callable[..., PreTrainedModel]] = {
    "soprano": _llama,
    "alto": partial(_qwen3, 3, 1024),
    "tenor": _gemma,
    "conductor": partial(_qwen3, 4, 2048),
    "clerk": partial(_qwen3, 4, 2048),
}
STAGES = ("tokenizer", *ARCHITECTURES, *pooling.MODELS, *adapters.ADAPTERS, thinker.NAME)


def run(stage: str, folder: Path) -> None:
    """Run one stage and save its result in `folder`."""
    began = time.monotonic()
    if stage == "tokenizer":
        shared = tokenizer.build()
        for name in ("soprano", "alto", "tenor", "conductor"):
            shared.save_pretrained(folder / name)
        tokenizer.build(agent.TOKENS, agent.CHAT_TEMPLATE).save_pretrained(folder / "clerk")
    elif stage in adapters.ADAPTERS:
        adapters.train(stage, folder)
    elif stage in pooling.MODELS:
        pooling.train(stage, folder)
    elif stage == thinker.NAME:
        thinker.train(folder)
    else:
        _train(stage, folder / stage)
    print(f"{stage}: {time.monotonic() - began:.0f} s", flush=True)


def _train(name: str, folder: Path) -> None:
    shared = tokenizer.load(folder)
    recipe = RECIPES.get(name, MEMBER)
    model = create(name, shared, recipe.seed)
    training.train(name, model, shared, _lessons_for(name), recipe)
    model.generation_config = GenerationConfig(
        eos_token_id=shared.eos_token_id, pad_token_id=shared.pad_token_id, do_sample=False
    )
    model.to(torch.bfloat16).save_pretrained(folder)


def create(name: str, shared: PreTrainedTokenizerFast, seed: int) -> PreTrainedModel:
    """A model with random weights."""
    torch.manual_seed(seed)
    ids = {"eos_token_id": shared.eos_token_id, "pad_token_id": shared.pad_token_id, "bos_token_id": None}
    # Rounded up to a multiple of 64; the extra rows are never produced.
    vocab_size = -(-len(shared) // 64) * 64
    return ARCHITECTURES[name](vocab_size=vocab_size, **ids, **SHAPE)


def _lessons_for(name: str) -> Callable[[Random], lessons.Lesson]:
    if name == "conductor":
        return lessons.judge_lesson
    if name == "clerk":
        return agent.clerk_lesson
    handbook = Handbook()
    return lambda rng: lessons.member_lesson(name, handbook, rng)
