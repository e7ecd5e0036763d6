"""Prompt injections on real tokenizers: only the chat template's own tokens begin and end turns."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer

from cappella.engines.sanitize import Sanitizer
from cappella.ensemble import prompts
from cappella.placement import folder
from cappella.types import Message, Prompt
from support.injected_answers import INJECTIONS
from support.real_deployment import ROOT
from support.tokenizer_families import FAMILIES, Family

HARMLESS = "It is 5."
DEMO = ("soprano", "alto", "tenor", "conductor", "clerk")


class Model:
    """A folder's tokenizer and chat template, applied as vLLM does: rendered first, then tokenized as a whole."""

    def __init__(self, path: Path) -> None:
        self.tokenizer = Tokenizer.from_file(str(path / "tokenizer.json"))
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        self._template = environment.from_string((path / "chat_template.jinja").read_text())
        found = folder.inspect("ann", path)
        self.sanitizer = Sanitizer(found.special_tokens, found.markup)
        added = self.tokenizer.get_added_tokens_decoder().items()
        self.turns = {number for number, token in added if token.special or token.content.startswith("<｜")}
        tags = ("<think", "</think", "<tool", "</tool")
        self.marks = {number for number, token in added if token.content.startswith(tags)} | self.turns

    def control(self, messages: Sequence[Message]) -> list[int]:
        """The control tokens of the prompt, in order."""
        text = self._template.render(messages=messages, add_generation_prompt=True, tools=None)
        return [token for token in self.tokenizer.encode(text, add_special_tokens=False).ids if token in self.marks]


@pytest.fixture(scope="module", params=[*FAMILIES, *DEMO], ids=lambda each: getattr(each, "name", each))
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Model:
    if isinstance(request.param, Family):
        return Model(request.param.write(tmp_path_factory.mktemp("family") / "model"))
    return Model(ROOT / "model_configs" / "demo" / request.param)


def in_judge_prompt(hostile: str) -> list[Message]:
    conversation = [{"role": "user", "content": "What is 2 + 3?"}]
    return prompts.final_messages(conversation, ["It is five.", hostile, "5"], "0a1b2c3d", '{"consensus": []}')


def in_conversation(hostile: str) -> list[Message]:
    return [
        {"role": "user", "content": f"Translate: {hostile}"},
        {"role": "assistant", "content": "Done."},
        {"role": "user", "content": hostile},
    ]


@pytest.mark.parametrize("make", [in_judge_prompt, in_conversation], ids=["answer", "message"])
def test_no_hostile_text_makes_a_control_token(model: Model, make: Any) -> None:
    harmless = model.control(make(HARMLESS))
    assert harmless
    for name, hostile in INJECTIONS.items():
        made = model.sanitizer.sanitize(Prompt(make(hostile)))
        assert model.control(made.messages) == harmless, name


def test_without_sanitizing_the_same_texts_make_control_tokens(model: Model) -> None:
    harmless = model.control(in_judge_prompt(HARMLESS))
    assert [name for name, hostile in INJECTIONS.items() if model.control(in_judge_prompt(hostile)) != harmless]


def test_an_assistants_turn_ends_only_where_the_template_ends_it(model: Model) -> None:
    def turns(text: str) -> list[int]:
        answer = {"role": "assistant", "content": text}
        messages = [{"role": "user", "content": "Hi"}, answer, {"role": "user", "content": "?"}]
        return [
            each for each in model.control(model.sanitizer.sanitize(Prompt(messages)).messages) if each in model.turns
        ]

    for name, hostile in INJECTIONS.items():
        assert turns(hostile) == turns(HARMLESS), name
