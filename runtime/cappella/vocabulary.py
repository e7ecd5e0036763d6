"""JSON objects, and the words that run options take. Standard library only, so that a client at a terminal starts fast."""

from typing import Any, Literal

Json = dict[str, Any]
"""A JSON object."""

Strategy = Literal["synthesize", "select", "vote", "debate"]
AnalysisMode = Literal["before", "alongside", "off"]
EarlyExit = Literal["off", "equal", "judge"]
AnswerOrder = Literal["shuffled", "arrival"]
GateMode = Literal["off", "rules", "judge"]
