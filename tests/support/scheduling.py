"""Which process runs which tests, where several run at once."""

from xdist.scheduler import LoadScopeScheduling


class EnginesTogether(LoadScopeScheduling):  # type: ignore[misc]
    """One process has all tests of real engines, begins with them, and starts each engine once.

    Those tests are the ones with `test_real_` in their file's name or their own.
    """

    def _split_scope(self, nodeid: str) -> str:
        # xdist begins with the scope that has the most tests.
        return "engines" if "test_real_" in nodeid else nodeid
