"""The words that run options take, each set once. Standard library only, so that a shell can complete them at once."""

from typing import Literal

Strategy = Literal["synthesize", "select", "vote"]
AnalysisMode = Literal["before", "alongside", "off"]
EarlyExit = Literal["off", "equal", "judge"]
AnswerOrder = Literal["shuffled", "arrival"]
GateMode = Literal["off", "rules", "judge"]
