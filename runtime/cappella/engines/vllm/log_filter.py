"""Keeps the texts of requests out of a vLLM server's log; `logging.json` attaches it, and the server imports it.

Records of modules that see no request pass whole. Of all others only what stands in the code itself is left: the message
without its values, and of an exception its class and its place.
"""

import linecache
import logging
import re
from functools import lru_cache
from pathlib import Path

# They load the model, compute and count; none of them has a request's texts.
SEES_NO_REQUEST = tuple(
    f"vllm.{name}"
    for name in (
        "compilation config distributed engine env_override kernels lora model_executor platforms plugins ray"
        " triton_utils usage utils v1.attention v1.core v1.engine.core v1.executor v1.kv_offload v1.metrics v1.spec_decode"
        " v1.worker entrypoints.launchers entrypoints.serve.utils.api_utils"
    ).split()
)
# vLLM's client errors are raised anew in the core, and the others for a request's values.
_OF_REQUESTS = (ValueError, TypeError, LookupError, OverflowError)
_AT_START = "failed to start"
_LEFT_OUT = "a message that is left out, since it may quote a request"


class WithoutRequests(logging.Filter):
    """Lets every record through, without the texts of requests."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Always true; changes the record."""
        raised = record.exc_info[1] if record.exc_info else None
        sees_requests = not _is_below(record.name, SEES_NO_REQUEST)
        if sees_requests:
            record.msg, record.args = record.msg if _is_constant(record) else _LEFT_OUT, ()
            record.stack_info = None
        if raised and (sees_requests or (_may_quote(raised) and _AT_START not in str(record.msg))):
            record.msg, record.args = f"{record.getMessage()} [{_kind_and_place(raised)}]", ()
            record.exc_info = record.exc_text = None
        return True


def _is_below(name: str, parents: tuple[str, ...]) -> bool:
    return any(name == parent or name.startswith(parent + ".") for parent in parents)


def _may_quote(error: BaseException | None) -> bool:
    """Whether it, or an exception that a traceback shows beside it, may quote a request."""
    if error is None:
        return False
    quotes = isinstance(error, _OF_REQUESTS) or "ValidationError" in type(error).__name__
    return quotes or _may_quote(error.__cause__ or error.__context__)


def _is_constant(record: logging.LogRecord) -> bool:
    """Whether the message, before its values are filled in, stands in the code: nothing was composed into it."""
    return isinstance(record.msg, str) and _bare(record.msg) in _source(record.pathname)


@lru_cache(maxsize=32)
def _source(path: str) -> str:
    return _bare("".join(linecache.getlines(path)))


def _bare(text: str) -> str:
    """The text without spaces, quotes and escaped line ends, as a message is broken up in code."""
    return re.sub(r"""\\n|[\s"'\\]+""", "", text)


def _kind_and_place(error: BaseException) -> str:
    """The exception's class, and the file and line where it was raised."""
    traceback = error.__traceback__
    while traceback and traceback.tb_next:
        traceback = traceback.tb_next
    place = f" at {Path(traceback.tb_frame.f_code.co_filename).name}:{traceback.tb_lineno}" if traceback else ""
    return type(error).__qualname__ + place
