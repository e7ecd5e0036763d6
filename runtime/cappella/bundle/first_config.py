"""The first config of a deployment: written for the models of a machine, or for those that somebody names."""

import re
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cappella.bundle import inventory
from cappella.bundle.progress import human
from cappella.config import Config, cards, load, weights
from cappella.config.weights import hub_name
from cappella.errors import ConfigError
from cappella.placement import advice, checkpoint, folder, own_context, parameters, pooling, proposal
from cappella.placement.machine import Machine
from cappella.placement.planner import Plan
from cappella.placement.proposal import PANEL, Candidate, Choice

PROMPT_LOOKUP_TOKENS = 4
MIN_TOKENS = 4096
"""A panel whose models have no room for such a context is not chosen."""
RECOMMENDED = (
    "Qwen/Qwen3-32B-AWQ",
    "Qwen/Qwen3-32B",
    "Qwen/Qwen3-14B-AWQ",
    "Qwen/Qwen3-4B-Instruct-2507",
    "mistralai/Ministral-3-14B-Instruct-2512",
    "ibm-granite/granite-3.3-8b-instruct",
    "microsoft/Phi-4-mini-instruct",
    "HuggingFaceTB/SmolLM3-3B",
    "openai/gpt-oss-120b",
    "openai/gpt-oss-20b",
    "zai-org/GLM-4.5-Air",
    "allenai/Olmo-3.1-32B-Instruct",
)
"""Models that anybody may download, of several families and sizes, for a machine that has none yet."""


@dataclass(frozen=True, slots=True)
class FirstConfig:
    """A config as YAML with comments, and its plan. `missing` are the models that are not on this machine."""

    text: str
    config: Config
    plan: Plan
    summary: str
    missing: Sequence[str]


def make(names: Sequence[str] | None, judge: str | None, here: Machine) -> FirstConfig:
    """The config of these members and this judge, or else of models that are chosen. Raises ConfigError, and DoesNotFit."""
    if names is not None:
        choice = proposal.of_these([_named(name.strip()) for name in names], _named(judge) if judge else None)
        config = _config(choice, here)
        return _first_config(choice, config, advice.plan(config, here), here)
    candidates = _stored() or _published(here)
    found = proposal.choose(candidates, here, lambda choice: _plan_with_room(choice, here))
    if found is None:
        place, known = "this machine's models", ", ".join(each.weights for each in candidates)
        raise ConfigError(place, f"none of {known} fits", "Pull a smaller one, or plan for other GPUs with --gpus")
    return _first_config(found.choice, _config(found.choice, here), found.plan, here)


def _stored() -> list[Candidate]:
    """The chat models on this machine."""
    return [
        _candidate(each.name, each.folder)
        for each in inventory.models([])
        if not each.problem and _can_chat(each.folder)
    ]


def _published(here: Machine) -> list[Candidate]:
    """The models whose cards Cappella has, and which anybody may download; for a machine with GPUs."""
    if not here.gpu:
        problem = "there are none, in the Hugging Face cache or where `cappella pull` puts them"
        raise ConfigError("this machine's models", problem, "Pull some, such as `cappella pull Qwen/Qwen3-0.6B`")
    return _recommended()


def _recommended() -> list[Candidate]:
    return [_of_card(cards.load(path)) for path in map(cards.shipped, RECOMMENDED) if path]


def _named(name: str) -> Candidate:
    """A model by its hub id or folder. Raises ConfigError if nothing is known of it."""
    hub = hub_name(name)
    at = weights.locate(name, Path.cwd())
    if at.is_dir():
        folder.inspect(name, at)
        return _candidate(name if hub else str(at.resolve()), at)
    if hub and (card := cards.shipped(hub.hub_id)):
        return _of_card(cards.load(card))
    hint = (
        f"`cappella pull {name}`, or make its card with `cappella card {name}`" if hub else "Name a folder or a hub id"
    )
    raise ConfigError(f"--models {name}", "is not on this machine, and there is no card of it", hint)


def _candidate(name: str, at: Path) -> Candidate:
    config = folder.read_json(name, at / "config.json")
    tensors = checkpoint.tensors(at, name)
    size_bytes = sum(tensor.size_bytes for tensor in tensors)
    hub = hub_name(name)
    card = cards.load(path) if hub and (path := cards.shipped(hub.hub_id)) else None
    return Candidate(
        weights=name,
        maker=hub.hub_id.partition("/")[0] if hub else "",
        architecture=str(config.get("model_type", "")),
        parameters=card.parameters if card else parameters.count(config, size_bytes),
        size_bytes=size_bytes,
        context_tokens=own_context.of(config).default_tokens,
        takes_tools=card is not None and card.tool_parser is not None,
        is_here=True,
    )


def _of_card(card: cards.Card) -> Candidate:
    maker, architecture = card.hub_id.partition("/")[0], str(card.config.get("model_type", ""))
    facts = (card.parameters, card.weight_bytes, card.context_tokens)
    return Candidate(card.hub_id, maker, architecture, *facts, takes_tools=card.tool_parser is not None, is_here=False)


def _can_chat(at: Path) -> bool:
    """Whether the model writes, has a chat template, and can be served."""
    try:
        if not pooling.writes(folder.inspect("", at).config):
            return False
        settings = at / "tokenizer_config.json"
        return (at / "chat_template.jinja").exists() or "chat_template" in folder.read_json("", settings)
    except ConfigError:
        return False


def _plan_with_room(choice: Choice, here: Machine) -> Plan | None:
    """The plan, if all fit with a context that is worth it."""
    config = _config(choice, here)
    least = {
        name: config.local[name].model_copy(update={"max_model_len": min(MIN_TOKENS, each.context_tokens)})
        for each, name in _names(choice).items()
    }
    if advice.found(config.model_copy(update={"models": least}), here) is None:
        return None
    return advice.found(config, here)


def _config(choice: Choice, here: Machine) -> Config:
    with tempfile.TemporaryDirectory() as home:
        path = Path(home) / "cappella.yaml"
        path.write_text(_text(choice, here), encoding="utf-8")
        return load.load(path)


def _first_config(choice: Choice, config: Config, plan: Plan, here: Machine) -> FirstConfig:
    names = _names(choice)
    panel = ", ".join(f"{each.weights} ({human(each.size_bytes)})" for each in choice.panel)
    reasons = [choice.reason, *_better(choice)]
    summary = "\n".join([f"Panel: {panel}", f"Judge: {choice.judge.weights}", *reasons])
    comments = [f"Written by `cappella init` for {_devices(here)}.", *reasons, "All keys: `cappella docs config`."]
    head = "".join(f"# {comment}\n" for comment in comments)
    missing = [each.weights for each in names if not each.is_here]
    return FirstConfig(head + _text(choice, here), config, plan, summary, missing)


def _better(choice: Choice) -> list[str]:
    """What would make a small panel better, if a recommended model would."""
    strongest = max(each.parameters for each in choice.panel)
    others = [
        each.weights
        for each in _recommended()
        if each.parameters <= strongest and not any(each.is_kin(member) for member in choice.panel)
    ]
    if len(choice.panel) >= PANEL or not others:
        return []
    return [
        f"A member of another family would make it better, such as {others[0]} (`cappella pull`), if there is room."
    ]


def _devices(here: Machine) -> str:
    sizes = Counter(round(each.total_bytes / 2**30) for each in here.devices)
    if not here.gpu:
        return f"a machine of {max(sizes)} GiB without a GPU"
    return " and ".join(f"{count} GPU{'s' * (count > 1)} of {size} GiB" for size, count in sizes.items())


def _text(choice: Choice, here: Machine) -> str:
    names = _names(choice)
    lines = [
        f"  {name}: {{weights: {each.weights}, prompt_lookup_tokens: {PROMPT_LOOKUP_TOKENS}}}  # copies from the answers"
        if each == choice.judge
        else f"  {name}: {{weights: {each.weights}}}"
        for each, name in names.items()
    ]
    members = [
        f"{{model: {names[each]}, samples: {choice.samples}, temperature: 0.7}}" if choice.samples > 1 else names[each]
        for each in choice.panel
    ]
    tools = ["    tools: true"] if all(each.takes_tools for each in choice.models) else []
    ensemble = [f"    panel: [{', '.join(members)}]", f"    judge: {names[choice.judge]}", *tools]
    presets = ["    presets:", '      quick: {strategy: select, analysis: "off", early_exit: equal}']
    # On a GPU, a plan takes all that is free; the memory of a machine is for other programs, too.
    half = sum(each.total_bytes for each in here.devices) // 2**31
    placement = [] if here.gpu else [f"placement: {{memory_bytes: {half}GiB}}  # half of the machine's memory"]
    parts = ["models:", *lines, "ensembles:", "  default:", *ensemble, *presets, *placement]
    return "\n".join(parts) + "\n"


def _names(choice: Choice) -> dict[Candidate, str]:
    """A short name for each model: the last part of its hub id or folder."""
    out: dict[Candidate, str] = {}
    for each in choice.models:
        tail = each.weights.partition("@")[0].rstrip("/").rpartition("/")[2].lower()
        name = re.sub(r"[^a-z0-9._-]", "-", re.sub(r"-(instruct|it|chat)\b", "", tail)).strip("-._") or "model"
        while name in out.values():
            name += "-2"
        out[each] = name[:60]
    return out
