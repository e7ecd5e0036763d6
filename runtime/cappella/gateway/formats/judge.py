"""`/v1/judge`: the request, and the judgement as its reply."""

import time
from typing import Annotated, Literal

from pydantic import Field, model_validator

from cappella.config.options import MAX_ANSWERS, GivenAnswer
from cappella.ensemble.judgement import Criterion, JudgeTask, Want
from cappella.ensemble.run import Run, Status
from cappella.gateway.formats import chat_messages
from cappella.gateway.formats.fields import MAX_REQUESTED_S, CandidateAnswer, Wire
from cappella.gateway.formats.message_fields import ChatMessage
from cappella.gateway.formats.policy import Fields
from cappella.gateway.formats.policy_ensembles import HINTS
from cappella.gateway.formats.policy_parts import CHAT_MESSAGES
from cappella.telemetry import judged, trace
from cappella.telemetry.trace_types import Count, Milliseconds, Usage
from cappella.types import Message, Prompt, Sampling

MAX_CRITERIA = 16
MAX_POINTS = 100
MAX_CRITERIA_CHARS = 8192
OF_SEVERAL: tuple[Want, ...] = ("analysis", "ranking", "preference")
"""What takes two answers at least."""

FIELDS = Fields(
    "model ensemble prompt messages answers criteria rubric want seed deadline_seconds",
    f"{HINTS} metadata",
    refused={"stream": "a judgement comes whole: leave stream out"},
    nothing={"stream": (False,)},
    below={"messages": CHAT_MESSAGES},
    passes_unknown=True,
)

Text = Annotated[str, Field(pattern=r"\S")]


class RubricCriterion(Wire):
    """One criterion: up to so many `points`. `description` tells the judge more than its name."""

    name: Annotated[str, Field(pattern=r"\S", max_length=100)]
    points: Annotated[int, Field(ge=1, le=MAX_POINTS)] = 10
    description: Annotated[str, Field(max_length=2000)] | None = None


class Candidate(CandidateAnswer):
    """An answer of a `model`, whose name the judge does not see."""

    content: Text


class JudgeRequest(Wire):
    """What to judge, by what, and who judges: the judge of an `ensemble`, or a single `model`."""

    model: str | None = None
    ensemble: str | None = None
    prompt: Text | None = None
    messages: Annotated[list[ChatMessage], Field(min_length=1)] | None = None
    answers: Annotated[list[Text | Candidate], Field(min_length=1, max_length=MAX_ANSWERS)]
    criteria: Annotated[str, Field(pattern=r"\S", max_length=MAX_CRITERIA_CHARS)] | None = None
    rubric: Annotated[list[RubricCriterion], Field(min_length=1, max_length=MAX_CRITERIA)] | None = None
    want: Annotated[list[Literal["analysis", "scores", "ranking", "preference"]], Field(min_length=1)] | None = None
    seed: Annotated[int, Field(ge=0, lt=1 << 32)] | None = None
    deadline_seconds: Annotated[float, Field(gt=0, le=MAX_REQUESTED_S)] | None = None

    @model_validator(mode="after")
    def _consistent(self) -> "JudgeRequest":
        for one, other in (("model", "ensemble"), ("prompt", "messages")):
            if (getattr(self, one) is None) == (getattr(self, other) is None):
                raise ValueError(f"send either {one} or {other}")
        if self.criteria is not None and self.rubric is not None:
            raise ValueError("criteria and rubric both say what counts: send one of them")
        if self.messages and self.messages[-1].role == "assistant":
            raise ValueError("messages ends in the assistant's turn: send that as one of the answers")
        names = [each.name for each in self.rubric or ()]
        if len(set(names)) < len(names):
            raise ValueError("rubric has two criteria of one name")
        alone = [each for each in self.want or () if each in OF_SEVERAL]
        if len(self.answers) == 1 and alone:
            raise ValueError(f"want has {alone[0]}, which takes two answers at least: this is one")
        return self

    @property
    def conversation(self) -> Prompt:
        turns: list[Message] = [{"role": "user", "content": self.prompt}]
        return Prompt(turns if self.messages is None else chat_messages.messages_of(self.messages), watched=False)

    @property
    def candidates(self) -> tuple[GivenAnswer, ...]:
        """The answers; those without a model are called alike, and told apart later."""
        each = [Candidate(content=answer) if isinstance(answer, str) else answer for answer in self.answers]
        return tuple(GivenAnswer(answer.model, answer.content) for answer in each)

    @property
    def task(self) -> JudgeTask:
        wanted: list[Want] = ["scores", "ranking"] if len(self.answers) > 1 else ["scores"]
        rubric = [Criterion(each.name, each.points, each.description or "") for each in self.rubric or ()]
        return JudgeTask(frozenset(self.want or wanted), self.criteria, rubric)

    @property
    def sampling(self) -> Sampling:
        return Sampling(seed=self.seed)


class JudgeReply(judged.Told):
    """A judgement, and what it cost. `labels` are the letters under which the analysis was made."""

    id: str
    object: Literal["judgement"]
    created: Count
    model: str
    judge_model: str
    status: Status
    seed: Count
    labels: dict[str, str]
    timings: dict[str, Milliseconds]
    usage: Usage


def reply_of(run: Run, called: str) -> JudgeReply:
    """The judgement of a run; `called` is the name by which the judge was called."""
    assert run.judgement
    return {
        "id": run.run_id,
        "object": "judgement",
        "created": int(time.time()),
        "model": called,
        "judge_model": run.settings.judge,
        "status": run.status,
        "seed": run.settings.seed,
        "labels": dict(run.labels),
        **judged.told(run.judgement),
        "timings": trace.timings(run),
        "usage": trace.run_usage(run),
    }
