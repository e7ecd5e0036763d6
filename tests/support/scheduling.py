"""Which process runs which tests, where several run at once."""

import re
from functools import cache
from pathlib import Path

from xdist.scheduler import LoadScopeScheduling

ROOT = Path(__file__).parents[2]
# The deployments of a session, as the tests that ask for them do.
DEPLOYED_ONCE = re.compile(r"\b(?:demo|adapters): Deployment")
# What the tests of a file share is made in each process that runs one of them: fixtures of its own, a browser, a client
# whose import takes seconds (and so stands in the functions that use it).
SHARED = re.compile(r'scope="module"|loop_scope="session"|^ +(?:from|import) (?:anthropic|mcp)\b', re.MULTILINE)


class EnginesTogether(LoadScopeScheduling):  # type: ignore[misc]
    """One process has all tests over a session's deployments of real engines, which it starts once, and begins with them.

    A second has the tests whose files start real engines of their own, since a start keeps one core busy at most. Both
    are known by `test_real_` in their file's name or their own. Likewise one process has all tests that share something
    else that is slow to make.
    """

    def _split_scope(self, nodeid: str) -> str:
        # xdist begins with the scope that has the most tests.
        file = nodeid.split("::")[0]
        if "test_real_" in nodeid:
            return "a session's engines" if DEPLOYED_ONCE.search(_source(file)) else "a file's engines"
        return _shared(file) or nodeid


@cache
def _source(file: str) -> str:
    return (ROOT / file).read_text()


def _shared(file: str) -> str | None:
    """The name of what this file's tests share; None if each may run anywhere."""
    found = SHARED.search(_source(file))
    if found is None:
        return None
    # Fixtures of a module are its own; a browser and a client serve all files that use them.
    return file if "module" in found[0] else found[0].split()[-1]
