"""What a seat may look up with: its tool servers, how many calls it may make, and whether it must make one."""

from dataclasses import dataclass

from cappella.vocabulary import ToolChoice

DEFAULT_TOOL_CALLS = 8


@dataclass(frozen=True, slots=True)
class SeatTools:
    """Before each answer a seat may make `max_calls` calls of the tools of these servers.

    With `choice: required` its first turn must make one.
    """

    servers: tuple[str, ...] = ()
    max_calls: int = DEFAULT_TOOL_CALLS
    choice: ToolChoice = "auto"
