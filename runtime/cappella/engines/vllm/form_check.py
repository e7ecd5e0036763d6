"""Compiles the forms of a request with llguidance, as vLLM does, before an engine sees them.

A few bytes of a schema may take all of a machine's time and memory: `multipleOf: 9999991` takes 28 s of a core, two such numbers in
one `allOf` hours. So processes with limits of both compile them, and what goes beyond these is the request's fault, too.
They take the forms of all requests by turns, one form at a time, and of one caller no two at once.
vLLM brings llguidance along; without it the engine decides.
"""

import asyncio
import importlib.util
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, nullcontext, suppress
from pathlib import Path
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

from cappella.engines import cache_salt
from cappella.engines.vllm import forms
from cappella.errors import EngineRejected
from cappella.threads import off_loop_if_large

MAX_CPU_S = 2
"""Of one form. The largest schemas in use take some 0.1 s."""
MAX_REQUEST_CPU_S = 5
"""Of all forms of one request, those compiled before included."""
MAX_MEMORY_BYTES = 1 << 30
TOO_COSTLY = f"The form of the answer takes over {MAX_CPU_S} s of a core, or {MAX_MEMORY_BYTES >> 20} MiB, to compile."
TOO_COSTLY_TOGETHER = f"The forms of the answer together take over {MAX_REQUEST_CPU_S} s of a core to compile."
BREAKS_COMPILER = "The form of the answer ends the process that compiles it."

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
_ATTEMPTS = 2
_BY_A_LIMIT = (-signal.SIGXCPU, -signal.SIGKILL, -signal.SIGABRT)


class _Compiled(NamedTuple):
    """`problem` is why a form cannot be compiled, in vLLM's words; empty if it can, or if no process can be started to tell."""

    problem: str
    cpu_s: float = 0.0


_MAX_KNOWN = 256
_known: dict[forms.Form, _Compiled] = {}
"""The last forms, oldest first."""
_known_lock = threading.Lock()
_turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
"""By caller, while one of its forms is compiled or waits."""


async def require_compilable(fields: Mapping[str, Any]) -> None:
    """Raises EngineRejected with the reason if an engine would refuse a form in these fields of a request."""
    spent_s = 0.0
    for form in dict.fromkeys(forms.found(fields)) if _INSTALLED else ():
        found = _known.get(form)
        if found is None:
            async with _turn(cache_salt.current()):
                # One job for each form: those of other requests come between, and one whose client has gone ends here.
                found = await asyncio.get_running_loop().run_in_executor(_threads, _compiled, form)
        spent_s += found.cpu_s
        if found.problem or spent_s > MAX_REQUEST_CPU_S:
            raise EngineRejected(found.problem or TOO_COSTLY_TOGETHER, 400)


async def require_compilable_body(body: bytes) -> None:
    """The same for the JSON body of a request."""
    if _INSTALLED and (fields := await off_loop_if_large(len(body), forms.fields_with_forms, body)):
        await require_compilable(fields)


def _turn(caller: str | None) -> AbstractAsyncContextManager[object]:
    """Many requests of one caller, each with a costly form, leave a process to the others."""
    return nullcontext() if caller is None else _turns.setdefault(caller, asyncio.Lock())


def _compiled(form: forms.Form) -> _Compiled:
    if known := _known.get(form):
        return known
    found = _told(form)
    with _known_lock:
        _known[form] = found
        if len(_known) > _MAX_KNOWN:
            del _known[next(iter(_known))]
    return found


def _told(form: forms.Form) -> _Compiled:
    """What this thread's process says of the form. One that ends for another reason than its limits is replaced once."""
    for _ in range(_ATTEMPTS):
        process = _process()
        if process is None:
            return _Compiled("")
        if answer := _answer(process, form):
            return _Compiled(*json.loads(answer))
        if _end(process) in _BY_A_LIMIT:
            return _Compiled(TOO_COSTLY, MAX_CPU_S)
    return _Compiled(BREAKS_COMPILER)


def _answer(process: "subprocess.Popen[str]", form: forms.Form) -> str:
    """A line; empty if the process ends before it has written one."""
    try:
        print(json.dumps(form), file=process.stdin, flush=True)
    except BrokenPipeError:
        return ""
    answer = process.stdout.readline() if process.stdout else ""
    return answer if answer.endswith("\n") else ""


def _process() -> "subprocess.Popen[str] | None":
    """This thread's process, begun if none lives; None if it does not begin."""
    process: subprocess.Popen[str] | None = getattr(_own, "process", None)
    if process and process.poll() is not None:
        _end(process)
        process = None
    return process or _begun()


def _begun() -> "subprocess.Popen[str] | None":
    pipe = subprocess.PIPE
    # A session of its own: Ctrl-C ends the server by and by, and must not end what its last requests still need.
    process = subprocess.Popen(
        _COMMAND, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True, start_new_session=True
    )
    _own.process = process
    if not (process.stdout and process.stdout.readline()):
        _end(process)
    return getattr(_own, "process", None)


def _end(process: "subprocess.Popen[str]") -> int:
    """Tidy up after this thread's process, which has ended; returns with what."""
    _own.process = None
    code = process.wait()
    for pipe in (process.stdin, process.stdout):
        with suppress(BrokenPipeError):
            pipe.close()  # type: ignore[union-attr]
    return code
