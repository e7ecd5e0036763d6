"""The one-line reason for the end of an engine process, parsed from its exit code and the last lines of its log."""

import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from signal import SIGKILL, Signals

MAX_TAIL_BYTES = 256 << 10
MAX_REASON_CHARACTERS = 300
PYDANTIC_LINES = 6

_PREFIX = re.compile(r"^(?:\([^()]*\) ?)?(?:(?:DEBUG|INFO|WARNING|ERROR|CRITICAL) [^\[]*\[[^\]]*\] ?)?")
_ERROR = re.compile(
    r"^[\w.]*(?:Error|Exception)(?:: |$)"  # the last line of a traceback
    r"|^[\w./ -]+: error: "  # argparse
    r"|^Fatal Python error: |^terminate called after "
)
_CHAIN = re.compile(r"^(?:During handling of the above exception|The above exception was the direct cause)")
# Errors that only report another error.
_SECONDARY = re.compile(
    r"Engine core initialization failed|WorkerProc initialization failed|EngineDeadError|EngineGenerateError"
    r"|[Ss]ee (?:root cause|stack trace)|CancelledError"
)
_VALIDATION = re.compile(r"\d+ validation errors? for \w+")
_REFUSAL = re.compile(r"^[\w.]*ValidationError: \d+ validation errors? for \w+|^[\w./ -]+: error: ")
_PYDANTIC_NOISE = re.compile(r"^Value error, | \[type=.*$")
# Not an error of the config: the next start may succeed.
_TRANSIENT = re.compile(r"No space left|Errno 28|Cannot allocate memory|MemoryError|Too many open files|temporarily")


@dataclass(frozen=True, slots=True)
class LoggedError:
    """An error in a log; `lines` are the part of the log that ends with it."""

    reason: str
    lines: Sequence[str]


def read_tail(log: Path, from_byte: int = 0) -> list[str]:
    """The last lines of a log, at most MAX_TAIL_BYTES and not before `from_byte`. Raises OSError."""
    with log.open("rb") as file:
        size = file.seek(0, 2)
        begin = max(min(from_byte, size), size - MAX_TAIL_BYTES, 0)
        file.seek(begin)
        text = file.read(MAX_TAIL_BYTES).decode(errors="replace")
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    return [line for line in lines if not line.startswith("guardian:")]


def find_error(log: Sequence[str], lines: int = 12) -> LoggedError | None:
    """The root cause of the last chain of errors in the log, with `lines` lines of the log."""
    plain = [_PREFIX.sub("", line, count=1) for line in log]
    at = _cause_at(plain)
    if at is None:
        return None
    reason, end = _with_details(plain, at)
    return LoggedError(
        textwrap.shorten(reason, MAX_REASON_CHARACTERS, placeholder=" …"), log[max(0, end + 1 - lines) : end + 1]
    )


def describe_exit(code: int | None, error: str | None, last_line: str | None) -> str:
    """The reason in one line, from what is known; a negative code is the signal that killed the process."""
    if code is not None and code < 0:
        hint = "; was it the kernel's OOM killer? See dmesg" if -code == SIGKILL else ""
        return f"killed by {_signal(-code)}" + (f": {error}" if error else hint)
    if code is None:
        return error or last_line or "it printed nothing"
    if error:
        return f"{error} (exit code {code})"
    return f"exit code {code}, and " + (f"its last line is: {last_line}" if last_line else "it printed nothing")


def is_refusal(lines: Sequence[str]) -> bool:
    """Whether the server refused its flags or the model's config in so many words: another start would say the same."""
    plain = [_PREFIX.sub("", line, count=1) for line in lines]
    return any(_REFUSAL.search(line) for line in plain)


def is_transient(reason: str) -> bool:
    """Whether the next start may succeed, because a disk or memory was full, say."""
    return _TRANSIENT.search(reason) is not None


def _cause_at(plain: Sequence[str]) -> int | None:
    """The index of the root cause in the last chain of errors that is not secondary throughout."""
    chains: list[list[int]] = []
    chained = False
    for number, line in enumerate(plain):
        if _CHAIN.match(line):
            chained = True
        elif _ERROR.search(line):
            if chained and chains:
                chains[-1].append(number)
            else:
                chains.append([number])
            chained = False
    primary = [[n for n in chain if not _SECONDARY.search(plain[n])] for chain in chains]
    candidates = [chain for chain in primary if chain] or chains
    return candidates[-1][0] if candidates else None


def _with_details(plain: Sequence[str], at: int) -> tuple[str, int]:
    """The reason, and the index of its last line."""
    details = plain[at + 1 : at + 1 + PYDANTIC_LINES]
    if plain[at].startswith("terminate called") and details and "what():" in details[0]:
        return f"{plain[at].strip()}: {details[0].split('what():', 1)[1].strip()}", at + 1
    if not _VALIDATION.search(plain[at]):
        return plain[at].strip(), at
    message = next((number for number, line in enumerate(details) if line[:1] == " "), None)
    if message is None:
        return plain[at].strip(), at
    field = f"{details[message - 1].strip()}: " if message else ""
    return field + _PYDANTIC_NOISE.sub("", details[message].strip()), at + 1 + message


def _signal(number: int) -> str:
    try:
        return f"signal {number} ({Signals(number).name})"
    except ValueError:
        return f"signal {number}"
