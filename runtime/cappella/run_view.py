"""The state of a run, built from the chunks of its stream."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from cappella.vocabulary import Json

State = Literal["asked", "waking", "queued", "writing", "done", "failed", "cancelled"]
CANCELLED_REASONS = ("straggler", "quorum_unreachable")
"""Reasons of a failure that is no fault of the member."""


@dataclass(slots=True)
class Member:
    """One member's answer. Times are on the view's clock; `tokens` is exact once the member is done."""

    name: str
    asked_at: float
    state: State = "asked"
    text: str = ""
    pieces: int = 0
    first_at: float | None = None
    tokens: int | None = None
    took_s: float | None = None
    problem: str = ""

    @property
    def is_awaited(self) -> bool:
        return self.state in ("asked", "waking", "queued", "writing")

    @property
    def is_at_work(self) -> bool:
        """Whether it is awaited, and does not wait itself for its engine."""
        return self.state in ("asked", "writing")


@dataclass(slots=True)
class View:
    """A run as its client sees it; `fusion` and `usage` come with the last chunk.

    `waits` has why the judge or the gate's model waits for its engine; `grace_ends_at` is when it is answered without those
    that are late. `analysis_text` is the judge's unfinished JSON; `labels` maps its letters to
    names.
    """

    model: str
    clock: Callable[[], float] = time.monotonic
    began_at: float = 0.0
    run_id: str = ""
    judge: str = ""
    panel: list[str] = field(default_factory=list)
    round: int = 1
    members: dict[str, Member] = field(default_factory=dict)
    alone: str = ""
    waits: dict[str, str] = field(default_factory=dict)
    grace_ends_at: float | None = None
    ranking: list[str] = field(default_factory=list)
    judging_at: float | None = None
    analysis_at: float | None = None
    labels: dict[str, str] = field(default_factory=dict)
    analysis_text: str = ""
    analysis: Json | None = None
    answer: str = ""
    answer_pieces: int = 0
    answer_at: float | None = None
    thinking_at: float | None = None
    ended_at: float | None = None
    fusion: Json = field(default_factory=dict)
    usage: Json = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.began_at = self.clock()

    @property
    def awaited(self) -> list[str]:
        return [member.name for member in self.members.values() if member.is_awaited]

    def add(self, chunk: Json) -> None:
        """Apply one chunk of the stream."""
        if event := chunk.get("fusion_event"):
            self._add_event(event)
        for choice in chunk.get("choices", ()):
            self._add_delta(choice.get("delta", {}))
        self.fusion = chunk.get("fusion") or self.fusion
        self.usage = chunk.get("usage") or self.usage
        self.analysis = self.fusion.get("analysis") or self.analysis

    def end(self) -> None:
        """The stream is complete."""
        self.ended_at = self.clock()

    def _add_delta(self, delta: Json) -> None:
        if delta.get("reasoning"):
            self.thinking_at = self.thinking_at or self.clock()
        if text := delta.get("content"):
            self.answer_at = self.answer_at or self.clock()
            self.answer += text
            self.answer_pieces += 1

    def _add_event(self, event: Json) -> None:
        match event["type"]:
            case "run.started":
                self.run_id, self.judge, self.panel = event["run_id"], event.get("judge") or "", event["panel"]
                self._start_members(self.panel)
            case "gate.decided":
                # The gate may still ask the panel, if the single model fails.
                self.alone = event["model"] if event["bypass"] else ""
                self._start_members([] if self.alone else self.panel)
            case "round.started":
                self.round = event["round"]
                self._start_members(self.panel)
            case "engine.waiting":
                self._note_wait(event["model"], event["reason"])
            case "engine.awake":
                self._note_wait(event["model"], "")
            case "grace.started":
                self.grace_ends_at = self.clock() + event["grace_ms"] / 1000
            case "answer.delta" | "answer.done" | "answer.failed" if event["model"] in self.members:
                self._update_member(self.members[event["model"]], event)
            case "tool.called" if event["model"] in self.members:
                # What it has said before is no part of its answer.
                self.members[event["model"]].text = ""
            case "review.done":
                self.ranking = event["ranking"]
            case "analysis.started":
                self.analysis_at, self.labels = self.clock(), event.get("labels", {})
            case "analysis.delta":
                self.analysis_text += event["delta"]
            case "analysis.done":
                self.analysis = event["analysis"]

    def _note_wait(self, name: str, reason: str) -> None:
        """`name` waits for its engine; without a reason, no longer."""
        member = self.members.get(name)
        if member is None:
            self.waits[name] = reason
        elif member.is_awaited:
            member.state = "asked" if not reason else "waking" if reason == "asleep" else "queued"

    def _start_members(self, panel: list[str]) -> None:
        self.members = {name: Member(name, self.clock()) for name in panel}
        self.judging_at = self.grace_ends_at = None

    def _update_member(self, member: Member, event: Json) -> None:
        match event["type"]:
            case "answer.delta":
                member.state, member.first_at = "writing", member.first_at or self.clock()
                member.text += event["delta"]
                member.pieces += 1
            case "answer.done":
                member.state, member.tokens, member.took_s = "done", event["tokens"], event["ms"] / 1000
            case "answer.failed":
                member.state = "cancelled" if event["reason"] in CANCELLED_REASONS else "failed"
                member.problem = f"{event['reason']}: {event['error']}"
                member.took_s = self.clock() - member.asked_at
        if not self.awaited:
            self.judging_at = self.clock()
