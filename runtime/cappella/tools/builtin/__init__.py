"""Tools in the box: they need no server of anybody's, and are off unless a config names them."""

from typing import Any

from cappella.config.builtin_tools import BuiltinTool
from cappella.tools.builtin.base import BuiltinServer
from cappella.tools.builtin.calculator import Calculator
from cappella.tools.builtin.clock import Clock
from cappella.tools.builtin.python import Python
from cappella.tools.builtin.sql import Sql


def open_builtin(name: str, config: BuiltinTool) -> BuiltinServer[Any]:
    """The tool server that a config names; it serves after its `start`, unless it has a `problem`."""
    match config.builtin:
        case "calculator":
            return Calculator(name)
        case "clock":
            return Clock(name, config.time_zone)
        case "python":
            return Python(name)
        case "sql":
            return Sql(name, config.files)
