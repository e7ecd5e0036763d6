"""What vLLM's own parser says of flags and names in a config, asked before a start in a process that imports vLLM."""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from cappella.config import Model, cards
from cappella.config.engine_args import canonical
from cappella.engines.vllm import server_args
from cappella.errors import ConfigError

TIMEOUT_S = 180
_ASK = """
import contextlib, io, json, sys
from vllm.entrypoints.launchers.cli_args import make_arg_parser
from vllm.reasoning import ReasoningParserManager
from vllm.tool_parsers import ToolParserManager
from vllm.utils.argparse_utils import FlexibleArgumentParser

parser, refused = make_arg_parser(FlexibleArgumentParser()), {}
for name, flags in json.load(sys.stdin).items():
    with contextlib.redirect_stderr(io.StringIO()) as said:
        try:
            parser.parse_args(flags)
        except (SystemExit, Exception) as error:
            lines = said.getvalue().strip().splitlines() or [str(error)]
            refused[name] = lines[-1]
known = {"tool_parser": ToolParserManager.list_registered(), "reasoning_parser": ReasoningParserManager.list_registered()}
print(json.dumps({"refused": refused, **known}))
"""


def mistakes(models: Mapping[str, Model]) -> list[ConfigError]:
    """What vLLM would refuse of these models' `engine_args` and parsers; asks it only about what is not ours."""
    flags = {f"{name}\n{key}": flag for name, model in models.items() for key, flag in _flags(model)}
    named = [(name, key) for name, model in models.items() for key in _parsers(model)]
    if not flags and not named:
        return []
    answer = _ask(flags)
    return [*_refused(answer["refused"]), *_unknown_parsers(models, named, answer)]


def _flags(model: Model) -> Iterator[tuple[str, Sequence[str]]]:
    for key, value in model.engine_args.items():
        yield key, server_args.engine_flags({key: value})


def _parsers(model: Model) -> list[str]:
    # A card of ours names parsers that vLLM has: the import takes ten seconds of a core.
    ours = cards.load(model.card) if model.card and model.card.parent == cards.SHIPPED else None
    names = {key: getattr(model, key) for key in ("tool_parser", "reasoning_parser")}
    return [key for key, name in names.items() if name and name != getattr(ours, key, None)]


def _ask(flags: Mapping[str, Sequence[str]]) -> Mapping[str, Any]:
    """Raises ConfigError if vLLM cannot be imported."""
    command = [sys.executable, "-c", _ASK]
    env = {**server_args.environment(None), "VLLM_LOGGING_LEVEL": "ERROR"}
    try:
        done = subprocess.run(
            command, input=json.dumps(flags), capture_output=True, text=True, check=False, timeout=TIMEOUT_S, env=env
        )
    except subprocess.TimeoutExpired as error:
        raise ConfigError(
            "vLLM", f"its import takes more than {TIMEOUT_S} s", "Try again on a less busy machine"
        ) from error
    if done.returncode != 0:
        said = (done.stderr.strip().splitlines() or ["no reason"])[-1]
        raise ConfigError("vLLM", f"it cannot be imported ({said})", "Install the extra cpu or gpu again")
    answer: Mapping[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def _refused(refused: Mapping[str, str]) -> Iterator[ConfigError]:
    for place, said in refused.items():
        name, _, key = place.partition("\n")
        words = said.partition("error: ")[2] or said
        yield ConfigError(
            f"models.{name}.engine_args.{key}", f"vLLM refuses it: {words.rstrip('.')}", "Change the value"
        )


def _unknown_parsers(
    models: Mapping[str, Model], named: Sequence[tuple[str, str]], answer: Mapping[str, Any]
) -> Iterator[ConfigError]:
    for name, key in named:
        value, known = getattr(models[name], key), answer[key]
        if value not in known:
            close = get_close_matches(canonical(value), known, n=1)
            hint = f"Did you mean {close[0]}?" if close else f"Use one of {', '.join(sorted(known))}"
            yield ConfigError(f"models.{name}.{key}", f"vLLM has no such parser: {value!r}", hint)
