"""Tells what was ignored of a request: a header, a counter, and once for each name a line in the log."""

import logging
import re
from collections.abc import Mapping, Sequence

from cappella.telemetry.metrics import Metrics

HEADER = "x-cappella-ignored"
MAX_LOGGED = 256
"""Names that are logged in all: they are the clients' own words."""
_IS_A_NAME = re.compile(r"(?:[a-z][a-z0-9_]{0,31}\.?){1,4}")
"""Other names may be a text: a log has none of a request."""

logger = logging.getLogger("cappella")


class IgnoredFields:
    """The ignored fields of all requests to one gateway."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._logged: set[str] = set()

    def told(self, path: str, names: Sequence[str]) -> Mapping[str, str]:
        """Count and log the names that a request's reply has; the headers of that reply."""
        if not names:
            return {}
        self._metrics.count_ignored(path, len(names))
        for name in names:
            if name not in self._logged and len(self._logged) < MAX_LOGGED:
                self._logged.add(name)
                if not _IS_A_NAME.fullmatch(name):
                    name = "(not shown)"
                logger.warning("%s: the field %s is ignored: nothing here does what it asks for", path, name)
        return {HEADER: ", ".join(names)}
