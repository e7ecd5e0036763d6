"""Trains the demo's two models that write nothing: the librarian places texts by meaning, the critic scores answers."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random

import torch
from tokenizers import processors
from torch import Tensor
from torch.nn import functional as F
from transformers import (
    BertConfig,
    BertModel,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForSequenceClassification,
)

from demo import lessons, tokenizer, world
from demo.world import Handbook, Part

BASE = "soprano"
"""The model whose tokenizer both use."""
DIMENSIONS = (16, 32, 64)
"""An embedding's first numbers are an embedding, too."""
SCALE = 20.0
SIZE = {"hidden_size": DIMENSIONS[-1], "num_attention_heads": 2}
RECIPES = {"librarian": (700, 4e-3, 41), "critic": (1000, 4e-3, 43)}
"""Steps, learning rate and seed of each: two to four minutes of one core."""
PAIRS = 48
ANSWERS = 48

Batch = tuple[Tensor, Tensor, Tensor]


def train(name: str, folder: Path) -> None:
    """Train one of them and save it."""
    torch.set_num_threads(1)
    steps, rate, seed = RECIPES[name]
    torch.manual_seed(seed)
    make, loss_of = MODELS[name]
    words = tokenizer.load(folder / BASE)
    model = make(words)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=0.1)
    losses = loss_of(model, words, Random(seed))
    model.train()
    total = 0.0
    for step in range(steps):
        loss = next(losses)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        schedule.step()
        total += loss.item()
        if step % 50 == 49:
            print(f"{name}: step {step + 1}/{steps} loss {total / 50:.4f}", flush=True)
            total = 0.0
    model.to(torch.bfloat16).save_pretrained(folder / name)
    words.save_pretrained(folder / name)


def _librarian(words: PreTrainedTokenizerFast) -> PreTrainedModel:
    """An encoder, which keeps no cache; its first token stands for the text."""
    start, end = (words.convert_tokens_to_ids(token) for token in (tokenizer.START, tokenizer.END))
    words.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{tokenizer.START} $A {tokenizer.END}",
        special_tokens=[(tokenizer.START, start), (tokenizer.END, end)],
    )
    words.chat_template = None
    shape = {"vocab_size": _rounded(words), "num_hidden_layers": 2, "intermediate_size": 192, **SIZE}
    dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    config = BertConfig(
        max_position_embeddings=256, type_vocab_size=1, pad_token_id=words.pad_token_id, **shape, **dropout
    )
    config.matryoshka_dimensions = list(DIMENSIONS)
    return BertModel(config, add_pooling_layer=False)


def _critic(words: PreTrainedTokenizerFast) -> PreTrainedModel:
    shape = {"vocab_size": _rounded(words), "num_hidden_layers": 2, "intermediate_size": 192, **SIZE}
    heads = {"num_key_value_heads": 2, "head_dim": 32, "max_position_embeddings": 1024, "num_labels": 1}
    ids = {"pad_token_id": words.pad_token_id, "eos_token_id": words.eos_token_id, "bos_token_id": None}
    return Qwen3ForSequenceClassification(Qwen3Config(**shape, **heads, **ids))


def _rounded(words: PreTrainedTokenizerFast) -> int:
    return -(-len(words) // 64) * 64


def _contrasts(model: PreTrainedModel, words: PreTrainedTokenizerFast, rng: Random) -> Iterator[Tensor]:
    """Losses of batches of pairs that say or ask the same, against all other pairs of the batch, in each size."""
    while True:
        pairs = [pair for _ in range(PAIRS) for pair in _pairs(rng)]
        first, second = (_embedded(model, words, texts) for texts in zip(*pairs, strict=True))
        same = torch.arange(len(pairs))
        loss = torch.zeros(())
        for size in DIMENSIONS:
            likeness = SCALE * F.normalize(first[:, :size]) @ F.normalize(second[:, :size]).T
            loss = loss + F.cross_entropy(likeness, same) + F.cross_entropy(likeness.T, same)
        yield loss / len(DIMENSIONS)


def _pairs(rng: Random) -> list[tuple[str, str]]:
    """Two pairs about one made-up entity, which only the attribute tells apart; names of the handbook are never seen."""
    if rng.random() < 0.2:
        parts = [world.skill(kind, rng) for kind in rng.sample(world.SKILLS, 2)]
    else:
        kind = rng.choice([kind for kind, (_, attributes) in world.KINDS.items() if len(attributes) > 1])
        entity = world.name(rng)
        parts = [world.fact(each, entity, rng) for each in rng.sample(world.KINDS[kind][1], 2)]
        if rng.random() < 0.2:
            parts[1] = world.fact("notice", entity, rng)
    return [(world.ask([part], rng).text, _other(part, rng)) for part in parts]


def _other(part: Part, rng: Random) -> str:
    return part.sentence if rng.random() < 0.7 else world.ask([part], rng).text


def _embedded(model: PreTrainedModel, words: PreTrainedTokenizerFast, texts: Sequence[str]) -> Tensor:
    batch = words(list(texts), padding=True, return_tensors="pt", return_token_type_ids=False)
    hidden: Tensor = model(**batch).last_hidden_state
    return hidden[:, 0]


def _marks(model: PreTrainedModel, words: PreTrainedTokenizerFast, rng: Random) -> Iterator[Tensor]:
    """Losses of batches of answers of known worth: a right sentence is worth 1, a wrong one -1, not to know 0."""
    handbook = Handbook().all
    words.padding_side = "right"

    def pick() -> Part:
        return world.skill(rng.choice(world.SKILLS), rng) if rng.random() < 0.2 else rng.choice(handbook)

    while True:
        texts, worths = [], []
        for _ in range(ANSWERS):
            parts = world.draw(rng, pick)[:2]
            question = world.ask(parts, rng)
            answer, worth = answered(parts, rng)
            texts.append(conversation(words, question.text, answer))
            worths.append(worth)
        batch = words(texts, padding=True, return_tensors="pt", add_special_tokens=False, return_token_type_ids=False)
        yield F.mse_loss(model(**batch).logits[:, 0], torch.tensor(worths))


def answered(parts: Sequence[Part], rng: Random) -> tuple[str, float]:
    """An answer in which each part is right, wrong or not known, and its worth from -1 to 1."""
    kinds = [rng.choices((1.0, 0.0, -1.0), (5, 2, 3))[0] for _ in parts]
    sentences = {1.0: lambda p: p.sentence, 0.0: lambda p: p.unknown, -1.0: lambda p: lessons.corrupted(p, rng)}
    text = " ".join(sentences[kind](part) for part, kind in zip(parts, kinds, strict=True))
    return text, sum(kinds) / len(kinds)


def conversation(words: PreTrainedTokenizerFast, question: str, answer: str) -> str:
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return str(words.apply_chat_template(turns, tokenize=False))


Losses = Callable[[PreTrainedModel, PreTrainedTokenizerFast, Random], Iterator[Tensor]]
MODELS: dict[str, tuple[Callable[[PreTrainedTokenizerFast], PreTrainedModel], Losses]] = {
    "librarian": (_librarian, _contrasts),
    "critic": (_critic, _marks),
}
