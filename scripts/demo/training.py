"""Trains a small causal model on lessons: loss on the reply only, Muon for matrices, AdamW for the rest."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from random import Random

import torch
from torch.nn import functional as F
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from demo.lessons import Lesson

POOL_BATCHES = 8
IGNORED = -100


@dataclass(frozen=True)
class Recipe:
    """Hyperparameters. The length is in steps, so that the same seed gives the same weights on any machine."""

    steps: int
    batch_size: int
    seed: int
    muon_lr: float = 0.02
    adam_lr: float = 3e-3
    decay_share: float = 0.4


def train(
    name: str,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    draw: Callable[[Random], Lesson],
    recipe: Recipe,
) -> None:
    """Train in place; prints a line every 50 steps."""
    # One thread, so that two trainings share two cores and sums have the same order on every machine.
    torch.set_num_threads(1)
    torch.manual_seed(recipe.seed)
    optimizers = _optimizers(model, recipe)
    rates = [[group["lr"] for group in optimizer.param_groups] for optimizer in optimizers]
    batches = _batches(tokenizer, draw, recipe)
    began, tokens, losses = time.monotonic(), 0, []
    model.train()
    for step in range(recipe.steps):
        ids, targets = next(batches)
        loss = _loss(model, ids, targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, lrs in zip(optimizers, rates, strict=True):
            for group, lr in zip(optimizer.param_groups, lrs, strict=True):
                group["lr"] = lr * _rate(step, recipe)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        tokens += ids.numel()
        losses.append(loss.item())
        if step % 50 == 49:
            speed = tokens / (time.monotonic() - began)
            loss_now = sum(losses[-50:]) / 50
            print(f"{name}: step {step + 1}/{recipe.steps} loss {loss_now:.4f} {speed:.0f} tokens/s", flush=True)
    model.eval()


def encode(tokenizer: PreTrainedTokenizerFast, lesson: Lesson) -> tuple[list[int], list[int]]:
    """Token ids of a lesson and its shifted targets: only the reply and its end token are learned."""
    prompt = tokenizer.apply_chat_template(
        lesson.messages, tools=lesson.tools, add_generation_prompt=True, tokenize=False
    )
    head = tokenizer.encode(prompt, add_special_tokens=False)
    tail = [*tokenizer.encode(lesson.reply, add_special_tokens=False), tokenizer.eos_token_id]
    ids = head + tail
    return ids[:-1], [IGNORED] * (len(head) - 1) + tail


def _batches(
    tokenizer: PreTrainedTokenizerFast, draw: Callable[[Random], Lesson], recipe: Recipe
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield batches of lessons of similar length, to save padding."""
    rng = Random(recipe.seed)
    while True:
        pool = [encode(tokenizer, draw(rng)) for _ in range(recipe.batch_size * POOL_BATCHES)]
        pool.sort(key=lambda pair: len(pair[0]))
        chunks = [pool[i : i + recipe.batch_size] for i in range(0, len(pool), recipe.batch_size)]
        rng.shuffle(chunks)
        for chunk in chunks:
            yield _pad([ids for ids, _ in chunk], tokenizer.pad_token_id), _pad([t for _, t in chunk], IGNORED)


def _pad(rows: Sequence[list[int]], fill: int) -> torch.Tensor:
    width = max(map(len, rows))
    return torch.tensor([row + [fill] * (width - len(row)) for row in rows])


def _loss(model: PreTrainedModel, ids: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """The loss; logits are computed for learned tokens only, since most tokens of a judge are prompt."""
    hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state
    learned = targets != IGNORED
    return F.cross_entropy(model.lm_head(hidden[learned]), targets[learned])


def _optimizers(model: PreTrainedModel, recipe: Recipe) -> list[torch.optim.Optimizer]:
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    rest = [p for name, p in model.named_parameters() if p.ndim != 2 or "embed" in name]
    return [
        torch.optim.Muon(matrices, lr=recipe.muon_lr, momentum=0.95, weight_decay=0.0),
        torch.optim.AdamW(rest, lr=recipe.adam_lr, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def _rate(step: int, recipe: Recipe) -> float:
    """The learning rate factor: warm up, hold, then fall linearly to 1/20."""
    left = (recipe.steps - step) / max(1.0, recipe.steps * recipe.decay_share)
    return min(1.0, (step + 1) / 50, max(0.05, left))
