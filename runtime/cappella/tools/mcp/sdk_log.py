"""What the MCP SDK logs, without the texts of requests and tool servers: where in it, and the class of an exception."""

import logging

logger = logging.getLogger("cappella")


class _WithoutTexts(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        raised = f", {type(error).__qualname__}" if error else ""
        logger.log(record.levelno, "mcp: a message of %s:%d is left out%s", record.module, record.lineno, raised)


def leave_out_texts() -> None:
    """From now on the SDK's log in this process quotes nobody: its tracebacks name what a client or a tool server has sent."""
    sdk = logging.getLogger("mcp")
    if not any(isinstance(each, _WithoutTexts) for each in sdk.handlers):
        sdk.addHandler(_WithoutTexts(logging.WARNING))
        sdk.propagate = False
