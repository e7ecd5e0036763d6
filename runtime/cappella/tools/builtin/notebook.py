"""Runs a program as a notebook does: shows the value of its last line if it prints nothing. A script: see python.py.

In the sandbox, with the standard library alone. A call of `main` follows it.
"""

import ast
import linecache
import sys
import traceback
from typing import Any, TextIO, cast

NAME = "program"
MAX_FRAMES = 4


class Watched:
    """Standard output that knows whether anything was printed."""

    printed = False

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        self.printed = self.printed or bool(text)
        return self._stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def main(source: str) -> None:
    watched = Watched(sys.stdout)
    sys.stdout = cast(TextIO, watched)
    sys.argv = [NAME]
    linecache.cache[NAME] = (len(source), None, source.splitlines(True), NAME)
    names = {"__name__": "__main__", "__builtins__": __builtins__}
    try:
        body = ast.parse(source, NAME)
        end = body.body[-1] if body.body else None
        last = ast.Expression(end.value) if isinstance(end, ast.Expr) else None
        body.body = body.body[:-1] if last else body.body
        exec(compile(body, NAME, "exec"), names)  # noqa: S102 - what the sandbox is for
        value = eval(compile(last, NAME, "eval"), names) if last else None
        if value is not None and not watched.printed:
            print(repr(value))
    except Exception as error:  # noqa: BLE001 - of a program that anybody wrote
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == NAME]
        lines = traceback.format_list(frames[-MAX_FRAMES:]) + traceback.format_exception_only(error)
        sys.stdout.flush()
        sys.stderr.write("".join(lines))
        sys.exit(1)
