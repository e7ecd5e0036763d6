"""The MCP SDK's own log is off: its messages and tracebacks quote what clients and tool servers have sent."""

import logging

OFF = logging.CRITICAL + 1


def leave_out_texts() -> None:
    """From now on the SDK logs nothing in this process; what fails is told in replies, and in Cappella's own log."""
    logging.getLogger("mcp").setLevel(OFF)
