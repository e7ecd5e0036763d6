"""Trains LoRA adapters of one demo model and saves them in PEFT's format; each learns another member's lessons."""

import json
from dataclasses import dataclass
from pathlib import Path
from random import Random

import torch
from safetensors.torch import save_file
from torch import nn
from transformers import LlamaForCausalLM

from demo import lessons, tokenizer, training
from demo.training import Recipe
from demo.world import Handbook, Part

BASE = "soprano"
RANK = 16
ALPHA = 32
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True)
class AdapterRecipe:
    """The member whose lessons an adapter learns, and the training recipe."""

    member: str
    recipe: Recipe


ADAPTERS = {
    "second": AdapterRecipe("alto", Recipe(steps=1100, batch_size=64, seed=31, muon_lr=0.004)),
    "third": AdapterRecipe("tenor", Recipe(steps=1100, batch_size=64, seed=37, muon_lr=0.004)),
}


class Unlearning(Handbook):
    """A handbook where half of the unknown facts are those that the base knows and the member does not."""

    def __init__(self, member: str) -> None:
        super().__init__()
        known = {part.key for part in self.known_by(member)}
        self._forgotten = [part for part in self.known_by(BASE) if part.key not in known]

    def made_up(self, rng: Random) -> Part:
        return rng.choice(self._forgotten) if rng.random() < 0.5 else super().made_up(rng)


class Lora(nn.Module):
    """A frozen linear layer plus a trainable low-rank product."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base
        self.lora_A = nn.Linear(base.in_features, RANK, bias=False)
        self.lora_B = nn.Linear(RANK, base.out_features, bias=False)
        nn.init.zeros_(self.lora_B.weight)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.base(hidden) + self.lora_B(self.lora_A(hidden)) * (ALPHA / RANK)
        return output


def train(name: str, folder: Path) -> None:
    """Train one adapter of the base model in `folder`, and save it in `folder`."""
    adapter = ADAPTERS[name]
    handbook = Unlearning(adapter.member)
    base = LlamaForCausalLM.from_pretrained(folder / BASE, dtype=torch.float32)
    torch.manual_seed(adapter.recipe.seed)
    attach(base)
    shared = tokenizer.load(folder / BASE)
    training.train(name, base, shared, lambda rng: lessons.member_lesson(adapter.member, handbook, rng), adapter.recipe)
    save(base, folder / "adapters" / name)


def attach(model: nn.Module) -> None:
    """Freeze the model and add a new adapter to each projection."""
    model.requires_grad_(False)
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Linear) and name in TARGETS:
                setattr(module, name, Lora(child))


def save(model: nn.Module, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        f"base_model.model.{name}": value.to(torch.bfloat16).contiguous()
        for name, value in model.state_dict().items()
        if ".lora_" in name
    }
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config = {
        "base_model_name_or_path": f"model_configs/demo/{BASE}",
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_alpha": ALPHA,
        "lora_dropout": 0.0,
        "modules_to_save": None,
        "peft_type": "LORA",
        "r": RANK,
        "target_modules": list(TARGETS),
        "task_type": "CAUSAL_LM",
    }
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n")
