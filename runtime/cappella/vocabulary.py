"""The values that run options may have. Imports only the standard library, so that the command line starts fast."""

from typing import Any, Literal

Json = dict[str, Any]
"""A JSON object."""

Strategy = Literal["synthesize", "select", "vote", "debate"]
AnalysisMode = Literal["before", "alongside", "off"]
EarlyExit = Literal["off", "equal", "judge"]
AnswerOrder = Literal["shuffled", "arrival"]
GateMode = Literal["off", "rules", "judge"]
