"""The thinker: the demo's judge, trained a little further to think between `<think>` marks before all that it writes."""

import re
from dataclasses import replace
from pathlib import Path
from random import Random

import torch
from tokenizers import AddedToken
from transformers import GenerationConfig, Qwen3ForCausalLM

from demo import lessons, tokenizer, training
from demo.agent import END_THINK, THINK
from demo.lessons import Lesson
from demo.training import Recipe

NAME = "thinker"
BASE = "conductor"
RECIPE = Recipe(steps=100, batch_size=8, seed=41, muon_lr=0.004, adam_lr=2e-3)


def lesson(rng: Random) -> Lesson:
    """One of the judge's, with the letters of the answers in its thoughts, as a judge's are."""
    taught = lessons.judge_lesson(rng)
    letters = re.findall(r"\[answer ([A-H]) ", str(taught.messages[-1]["content"]))
    return replace(taught, reply=f"{THINK}\nI read {', '.join(letters)}.\n{END_THINK}\n\n{taught.reply}")


def train(folder: Path) -> None:
    """Train the judge in `folder` further, and save it beside it."""
    shared = tokenizer.load(folder / BASE)
    shared.add_tokens([AddedToken(text, normalized=False, special=False) for text in (THINK, END_THINK)])
    model = Qwen3ForCausalLM.from_pretrained(folder / BASE, dtype=torch.float32)
    training.train(NAME, model, shared, lesson, RECIPE)
    model.generation_config = GenerationConfig(
        eos_token_id=shared.eos_token_id, pad_token_id=shared.pad_token_id, do_sample=False
    )
    shared.save_pretrained(folder / NAME)
    model.to(torch.bfloat16).save_pretrained(folder / NAME)
