"""The story of one judgement: the judge reads answers that come from elsewhere, and gives what is wanted of them."""

import time
from collections.abc import Mapping, Sequence

from cappella.config.options import Settings
from cappella.engines.base import Engine
from cappella.engines.context_size import prompt_work
from cappella.engines.sanitize import each_text_once
from cappella.ensemble import given_answers, own_notes
from cappella.ensemble.budget import Budget, within_budget
from cappella.ensemble.events import Emit, RunStarted
from cappella.ensemble.judgement import Judgement, JudgeTask
from cappella.ensemble.judgement_parts import Parts
from cappella.ensemble.living_judge import is_up, with_living_judge
from cappella.ensemble.messages import for_judge
from cappella.ensemble.pipeline import LOADING_RETRY_AFTER_S, new_run_id
from cappella.ensemble.prompts import answer_text
from cappella.ensemble.run import Answer, Call, FailedJudge, Run, Verdict
from cappella.ensemble.timing import timings
from cappella.errors import EngineBroke, EngineNotReady, ModelNotReady
from cappella.threads import off_loop_if_large
from cappella.types import Capabilities, Prompt


class Judging:
    """Judges the answers of the settings by a task; its runs have a `judgement`, and are recorded as all others."""

    def __init__(self, engines: Mapping[str, Engine], task: JudgeTask) -> None:
        self._engines = engines
        self._task = task

    async def run(self, prompt: Prompt, settings: Settings, emit: Emit, run_id: str | None = None) -> Run:
        """One judgement; cancelling it cancels its calls. What the judge did not give is told, and the run `degraded`.

        A judge that breaks before it has given anything is followed by the next one that is up. Raises ModelNotReady, ContextLengthExceeded, EngineError, JudgeFailed or DeadlineExceeded where it gave nothing.
        """
        run_id, began_at = run_id or new_run_id(), time.monotonic()
        settings, failed = with_living_judge(self._engines, settings)
        if not is_up(self._engines, settings.judge):
            raise ModelNotReady(f"Not ready: the judge {settings.judge}.", LOADING_RETRY_AFTER_S)
        emit(RunStarted(run_id, settings.answer_names, settings.judge))
        budget = Budget(settings.max_total_tokens) if settings.max_total_tokens else None
        engines, earlier = within_budget(self._engines, budget), list[Call]()
        with each_text_once(), own_notes.known(settings.own_texts):
            given = await given_answers.read(settings.answers, None)
            answers = [each for each in given if isinstance(each, Answer)]
            # Known from here on: the first call reads all of them.
            await off_loop_if_large(sum(len(each.content) for each in answers), lambda: list(map(answer_text, answers)))
            while True:
                engine, left_s = engines[settings.judge], settings.deadline_s - (time.monotonic() - began_at)
                parts = await self._parts(engine, prompt, settings, answers, max(0.0, left_s))
                try:
                    with engine.keep_awake():
                        await parts.gather()
                    return _run(run_id, settings, parts, answers, began_at, earlier, failed)
                except (EngineBroke, EngineNotReady) as error:
                    settings, broke = with_living_judge(self._engines, settings, error)
                    if not broke:
                        raise
                    earlier += parts.calls
                    failed += broke

    async def _parts(
        self, engine: Engine, prompt: Prompt, settings: Settings, answers: Sequence[Answer], left_s: float
    ) -> Parts:
        readable = await off_loop_if_large(prompt_work(prompt), for_judge, prompt, engine.capabilities)
        return Parts(engine, readable, settings.model_copy(update={"deadline_s": left_s}), self._task, answers)


def lack(capabilities: Capabilities, task: JudgeTask) -> str | None:
    """Why the judge's server cannot do what the task needs; None if it can."""
    if task.want & {"analysis", "scores"} and not capabilities.json_schema:
        return "analysis and scores are JSON, and its server is not declared to support json_schema"
    if ("preference" in task.want or task.ranked_by == "choice") and not (
        capabilities.extensions and capabilities.logprobs
    ):
        return "it has to choose, and its server does not support both structured_outputs and logprobs"
    return None


def _run(
    run_id: str,
    settings: Settings,
    parts: Parts,
    answers: Sequence[Answer],
    began_at: float,
    earlier: Sequence[Call],
    failed: Sequence[FailedJudge],
) -> Run:
    """The run's record. Its answer is the best one, or the first of them where none is ranked."""
    judgement, calls = parts.judgement, [*earlier, *parts.calls]
    reasons = [*(each.reason for each in judgement.missing), *(each.reason for each in failed)]
    by_name = {answer.name: answer for answer in answers}
    best = judgement.ranking[0].name if judgement.ranking else None
    return Run(
        run_id=run_id,
        settings=settings,
        status="degraded" if reasons else "ok",
        verdict=Verdict(by_name[best] if best else answers[0], best),
        answers=answers,
        rounds=(),
        labels=_labels(parts, judgement),
        analysis=judgement.analysis,
        ranking=None,
        gate=None,
        failure_reason=reasons[0] if reasons else None,
        calls=calls,
        prompt_tokens=0,
        timings=timings(began_at, began_at, None, time.monotonic(), (), calls),
        judgement=judgement,
        failed_judges=failed,
    )


def _labels(parts: Parts, judgement: Judgement) -> Mapping[str, str]:
    """The letters of the analysis; of choices, an answer has more than one."""
    return parts.judge.labels if judgement.analysis else {}
