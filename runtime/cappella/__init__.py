"""Cappella: a panel of local models on vLLM, a judge, one answer."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cappella.runtime import Runtime

__version__ = "0.1.0"
__all__ = ["Runtime", "__version__"]


def __getattr__(name: str) -> Any:
    """`cappella.Runtime`, imported when it is first asked for: the command line starts faster without it."""
    if name == "Runtime":
        from cappella.runtime import Runtime

        return Runtime
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
