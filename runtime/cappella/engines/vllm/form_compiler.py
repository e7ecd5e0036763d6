"""The process that compiles forms for `form_check.py`: one line of JSON for each in and out. It imports only llguidance."""

import json
import math
import resource
import sys
import time
from typing import Literal

import llguidance

Kind = Literal["json", "regex", "grammar", "choice"]


def main(max_cpu_s: int, max_memory_bytes: int) -> None:
    """Answer each form with what is wrong with it, and the CPU seconds that it took.

    The kernel ends a process that takes too much for one.
    """
    tokenizer = llguidance.LLTokenizer("byte")
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_DATA, max_memory_bytes)
    print("ready", flush=True)
    for line in sys.stdin:
        begun_s = time.process_time()
        _limit(resource.RLIMIT_CPU, math.ceil(begun_s) + max_cpu_s)
        kind, text = json.loads(line)
        found = problem(kind, text, tokenizer)
        print(json.dumps([found, time.process_time() - begun_s]), flush=True)


def _limit(kind: int, most: int) -> None:
    """Set a limit that may be raised again, as far as this process may."""
    allowed = resource.getrlimit(kind)[1]
    resource.setrlimit(kind, (most if allowed == resource.RLIM_INFINITY else min(most, allowed), allowed))


def problem(kind: Kind, text: str, tokenizer: llguidance.LLTokenizer) -> str:
    """Why the form cannot be compiled, in vLLM's words; empty if it can."""
    try:
        if kind == "json":
            grammar = llguidance.LLMatcher.grammar_from_json_schema(text, defaults={"whitespace_flexible": True})
        else:
            grammar = llguidance.grammar_from(kind, text)
    except (ValueError, KeyError, TypeError) as error:
        return f"Invalid grammar specification: {error}"
    if found := llguidance.LLMatcher.validate_grammar(grammar):
        return f"Grammar error: {found}"
    # What the engine does next, and what no validation does.
    matcher = llguidance.LLMatcher(tokenizer, grammar, log_level=0)
    if not matcher.is_error():
        matcher.compute_bitmask()
    # Beyond its first line an error shows the state of the parser.
    return f"Grammar error: {found.splitlines()[0]}" if (found := matcher.get_error()) else ""


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
