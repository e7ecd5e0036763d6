"""Writes one audit line for each action of an operator: who, what, on what, and how it ended."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from cappella.telemetry import records
from cappella.telemetry.audit.log import AuditLog

KIND = "action"
DONE = "done"
MAX_NAME_CHARACTERS = 100


class OperatorActions:
    """The actions on one server; without an audit `log` they are not recorded."""

    def __init__(self, log: AuditLog | None) -> None:
        self._log = log

    @contextmanager
    def recorded(self, action: str, **what: Any) -> Iterator[dict[str, Any]]:
        """An action that ends with this context; the caller may add fields of its outcome to the yielded line.

        `status` is `done`, or the name of the error that ended it. `key` is that of the request; without a request, as for a
        signal, `by` says so.
        """
        request = records.current_or_none()
        who = {"key": request.key_id if request else None, "by": "request" if request else "signal"}
        line = {"kind": KIND, **who, "action": action[:MAX_NAME_CHARACTERS], **what}
        try:
            yield line
        except BaseException as error:
            line["status"] = type(error).__name__
            raise
        else:
            line["status"] = DONE
        finally:
            if self._log:
                self._log.write(line)
