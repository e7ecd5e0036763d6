"""`POST /v1/judge`: answers that come from elsewhere, judged by the judge of an ensemble or by a model."""

import secrets
from collections.abc import Callable

import orjson
from starlette.requests import Request
from starlette.responses import Response

from cappella.config import Config
from cappella.config.ensembles import Judge
from cappella.config.judge_seat import JudgeSeat
from cappella.config.limits import Limits
from cappella.config.options import Options, Settings
from cappella.engines.context_size import prompt_chars
from cappella.ensemble import given_answers
from cappella.ensemble.grading_texts import rubric_text
from cappella.ensemble.judgement import JudgeTask
from cappella.ensemble.judging import Judging, lack
from cappella.ensemble.living_judge import with_living_judge
from cappella.ensemble.pipeline import new_run_id
from cappella.ensemble.run import Run
from cappella.ensemble.together import AT_ONCE
from cappella.errors import RequestError, UnknownModel
from cappella.gateway.admission import in_time
from cappella.gateway.formats import policy
from cappella.gateway.formats.judge import FIELDS, JudgeRequest, reply_of
from cappella.gateway.model_list import PREFIX, callable_names
from cappella.gateway.plain_routes import PlainRoutes
from cappella.gateway.receive import received
from cappella.gateway.request import Incoming, unless_gone
from cappella.gateway.state import GatewayState
from cappella.gateway.validation import parse
from cappella.telemetry import records
from cappella.threads import off_loop_if_large
from cappella.vocabulary import TASKS

PATH = "/v1/judge"


def create_router(current: Callable[[], GatewayState]) -> PlainRoutes:
    router = PlainRoutes()

    @router.post(PATH)
    async def judge(request: Request) -> Response:
        async with received(current, request) as incoming:
            return await _judge(current(), incoming)

    return router


async def _judge(state: GatewayState, incoming: Incoming) -> Response:
    refuses = state.config.server.refuses_unknown_fields
    parsed, ignored = await off_loop_if_large(incoming.work_chars, _read, incoming, refuses)
    called = _called(state, parsed, incoming)
    state.admission.require_queue_space(called, incoming.key_id)
    # First: what follows tells of the judge and of the limits.
    await state.gatekeeper.admit(incoming.key, [called])
    settings = await off_loop_if_large(incoming.work_chars, _settings, state, parsed, called)
    headers = state.ignored.told(PATH, ignored)
    run = await unless_gone(incoming.request, _run(state, incoming, parsed, settings))
    reply = reply_of(run, parsed.model or parsed.ensemble or called)
    return Response(orjson.dumps(reply), media_type="application/json", headers=headers)


async def _run(state: GatewayState, incoming: Incoming, parsed: JudgeRequest, settings: Settings) -> Run:
    """The judgement, once the judge's engine has room for its calls."""
    called, task = settings.called, parsed.task
    judge = with_living_judge(state.engines, settings)[0].judge
    needed = {state.config.host_of[judge]: min(AT_ONCE, task.calls(len(parsed.answers)))}
    slot = state.admission.slot(called, needed, key=incoming.key_id)
    slot = in_time(slot, settings.deadline_s - incoming.waited_s, "deadline_s")
    async with state.in_flight.track_run() as begin, records.current().waiting(called, slot):
        incoming.memory.release()
        left = settings.model_copy(update={"deadline_s": settings.deadline_s - incoming.waited_s})
        begin(left.deadline_s)
        judging, prompt = Judging(state.engines, task), parsed.conversation
        return await state.recorder.run(judging, incoming.key, prompt, left, lambda event: None, new_run_id())


def _read(incoming: Incoming, refuse_unknown: bool) -> tuple[JudgeRequest, list[str]]:
    """The request, and what of it is ignored. Raises RequestError."""
    reading = policy.read(FIELDS, incoming.wire, refuse_unknown)
    return parse(JudgeRequest, reading), reading.ignored


def _called(state: GatewayState, parsed: JudgeRequest, incoming: Incoming) -> str:
    """The ensemble, as `cappella/<name>`, or the model whose judgement is wanted. Raises UnknownModel."""
    config = state.config
    if parsed.model is not None:
        name, field = config.meant_by(parsed.model), "model"
    else:
        name, field = PREFIX + (parsed.ensemble or "").removeprefix(PREFIX), "ensemble"
    is_ensemble = name.startswith(PREFIX) and name.removeprefix(PREFIX) in config.ensembles
    if not is_ensemble and name not in config.models_by_name:
        raise UnknownModel(parsed.model or parsed.ensemble or "", callable_names(config, incoming.key), field)
    return name


def _settings(state: GatewayState, parsed: JudgeRequest, called: str) -> Settings:
    """The settings of the judgement. Raises RequestError for what the judge cannot do, and for more than the limits allow."""
    config, task = state.config, parsed.task
    ensemble = config.ensembles[called.removeprefix(PREFIX)] if called.startswith(PREFIX) else None
    if ensemble and not ensemble.allow_overrides:
        message = (
            f"{called} allows no overrides (allow_overrides: false), and other answers are one: call a model instead."
        )
        raise RequestError(message, "ensemble" if parsed.ensemble else "model", "overrides_forbidden")
    judge = ensemble.judge if ensemble else Judge(model=called)
    _require_able(config, judge.model, task)
    _require_modest(parsed, config.server.limits)
    _, answers = given_answers.seated((), parsed.candidates, "answers")
    options = ensemble.given() if ensemble else {}
    settings = Settings(
        ensemble=called.removeprefix(PREFIX),
        by_model=ensemble is None,
        panel=(),
        answers=answers,
        judge=judge.model,
        next_judges=tuple(_seat(each, parsed) for each in judge.in_order if _is_able(config, each.model, task)),
        strategy="select",
        analysis="off",
        quorum=1,
        seed=secrets.randbits(32) if parsed.seed is None else parsed.seed,
        max_total_tokens=options.get("max_total_tokens"),
        deadline_s=parsed.deadline_seconds or options.get("deadline_s") or Options().deadline_s,
        panel_watched=False,
    )
    return settings.with_next_judge


def _seat(judge: Judge, parsed: JudgeRequest) -> JudgeSeat:
    """How this one judges: by what the request says, or else by its own criteria."""
    task = parsed.task
    criteria = rubric_text(task.rubric) if task.rubric else task.criteria or judge.criteria
    sampling, texts = parsed.sampling.over(judge.sampling), judge.prompts.texts
    return JudgeSeat(judge.model, sampling, criteria, judge.analysis_max_tokens, texts, judge.own_knowledge)


def _is_able(config: Config, judge: str, task: JudgeTask) -> bool:
    capabilities = config.models_by_name[judge].capabilities
    return capabilities.writes and lack(capabilities, task) is None


def _require_able(config: Config, judge: str, task: JudgeTask) -> None:
    """Raises RequestError for what the first judge cannot do; others that cannot are left out."""
    capabilities = config.models_by_name[judge].capabilities
    if not capabilities.writes:
        does = TASKS[capabilities.task].does
        raise RequestError(f"{judge} {does}, and judges nothing in words.", "model", "wrong_task")
    if problem := lack(capabilities, task):
        raise RequestError(f"{judge} cannot judge so: {problem}.", "want")


def _require_modest(parsed: JudgeRequest, limits: Limits) -> None:
    """Raises RequestError for a judgement of too many calls, or of too much to read; it says what it would take."""
    task, sizes = parsed.task, [len(answer.content) for answer in parsed.candidates]
    calls = task.calls(len(sizes))
    chars = task.chars_read(prompt_chars(parsed.conversation) + len(task.criteria or rubric_text(task.rubric)), sizes)
    for size, most, what, limit in (
        (calls, limits.judge_calls, "calls", "judge_calls"),
        (chars, limits.judge_chars, "characters to read", "judge_chars"),
    ):
        if size > most:
            message = f"This would take the judge {size} {what}; it may take {most} (server.limits.{limit})."
            raise RequestError(message, "answers", "too_large")
