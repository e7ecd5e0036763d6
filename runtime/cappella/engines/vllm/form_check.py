"""Compiles the forms of a request with llguidance, as vLLM does, before an engine sees them.

A few bytes of a schema may take all of a machine's time and memory: `multipleOf: 9999991` takes 28 s of a core, two such numbers in
one `allOf` hours. So processes with limits of both compile them, and what goes beyond these is the request's fault, too.
vLLM brings llguidance along; without it the engine decides.
"""

import asyncio
import importlib.util
import json
import subprocess
import sys
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from cappella.engines.vllm import forms
from cappella.errors import EngineRejected
from cappella.threads import off_loop_if_large

MAX_CPU_S = 2
"""Of one form. The largest schemas in use take some 0.1 s."""
MAX_MEMORY_BYTES = 1 << 30
TOO_COSTLY = f"The form of the answer takes over {MAX_CPU_S} s of a core, or {MAX_MEMORY_BYTES >> 20} MiB, to compile."

_INSTALLED = importlib.util.find_spec("llguidance") is not None
# -P: the modules beside it are no modules of its own.
_COMMAND = [
    sys.executable,
    "-P",
    str(Path(__file__).with_name("form_compiler.py")),
    str(MAX_CPU_S),
    str(MAX_MEMORY_BYTES),
]
# Each thread has a process, which ends with it.
_threads = ThreadPoolExecutor(2, "forms")
_own = threading.local()


async def require_compilable(fields: Mapping[str, Any]) -> None:
    """Raises EngineRejected with the reason if an engine would refuse a form in these fields of a request."""
    found = tuple(forms.found(fields)) if _INSTALLED else ()
    if not found:
        return
    problem = await asyncio.get_running_loop().run_in_executor(_threads, _first_problem, found)
    if problem:
        raise EngineRejected(problem, 400)


async def require_compilable_body(body: bytes) -> None:
    """The same for the JSON body of a request."""
    if _INSTALLED and (fields := await off_loop_if_large(len(body), forms.fields_with_forms, body)):
        await require_compilable(fields)


def _first_problem(found: tuple[forms.Form, ...]) -> str:
    return next((problem for form in found if (problem := _problem(*form))), "")


@lru_cache(maxsize=128)
def _problem(kind: forms.Kind, text: str) -> str:
    """Why the form cannot be compiled, in vLLM's words; empty if it can, or if no process can be started to tell."""
    process = _process()
    if process is None:
        return ""
    try:
        print(json.dumps([kind, text]), file=process.stdin, flush=True)
        answer = process.stdout.readline() if process.stdout else ""
    except BrokenPipeError:
        answer = ""
    if answer.endswith("\n"):
        return str(json.loads(answer))
    _end(process)
    return TOO_COSTLY


def _process() -> "subprocess.Popen[str] | None":
    """This thread's process, begun if there is none; None if it does not begin."""
    process: subprocess.Popen[str] | None = getattr(_own, "process", None)
    if process is None:
        pipe = subprocess.PIPE
        process = subprocess.Popen(_COMMAND, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True)
        _own.process = process
        if not (process.stdout and process.stdout.readline()):
            _end(process)
    return getattr(_own, "process", None)


def _end(process: "subprocess.Popen[str]") -> None:
    """Tidy up after this thread's process, which has ended."""
    _own.process = None
    process.wait()
    for pipe in (process.stdin, process.stdout):
        with suppress(BrokenPipeError):
            pipe.close()  # type: ignore[union-attr]
