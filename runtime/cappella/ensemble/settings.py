"""Request, then ensemble, then default: everything that decides a run, resolved once."""

import secrets
from collections.abc import Collection, Sequence
from dataclasses import replace

from cappella.config import Ensemble, seats
from cappella.errors import RequestError, UnknownModel
from cappella.types import Overrides, Sampling, Seat, Settings


def resolve(
    name: str, ensemble: Ensemble, models: Collection[str], overrides: Overrides, judge_sampling: Sampling
) -> Settings:
    """The settings of one run. Raises RequestError for what the operator forbids or the config does not have."""
    if overrides != Overrides() and not ensemble.allow_overrides:
        raise RequestError(f"The operator of cappella/{name} allows no overrides.", "fusion", "overrides_forbidden")
    panel = _panel(ensemble, models, overrides, judge_sampling.seed)
    judge = ensemble.judge.model if overrides.judge is None else overrides.judge
    _require_models([judge], models, "fusion.model")
    return Settings(
        ensemble=name,
        panel=panel,
        judge=judge,
        analysis=overrides.analysis or ensemble.analysis,
        quorum=_quorum(ensemble, overrides, len(panel)),
        round_timeout_s=overrides.round_timeout_s or ensemble.round_timeout_s,
        deadline_s=overrides.deadline_s or ensemble.deadline_s,
        seed=secrets.randbits(32) if judge_sampling.seed is None else judge_sampling.seed,
        judge_sampling=judge_sampling.over(ensemble.judge.sampling),
        criteria=ensemble.judge.criteria,
        analysis_max_tokens=ensemble.judge.analysis_max_tokens,
    )


def _panel(ensemble: Ensemble, models: Collection[str], overrides: Overrides, seed: int | None) -> tuple[Seat, ...]:
    chosen = ensemble.seats
    if overrides.panel is not None:
        _require_models(overrides.panel, models, "fusion.analysis_models")
        configured = {seat.model: seat.sampling for seat in reversed(ensemble.seats)}
        chosen = seats((model, configured.get(model, Sampling())) for model in overrides.panel)
    # Two seats of one model with one seed would say the same thing twice.
    seeds = [None if seed is None else seed + number for number in range(len(chosen))]
    return tuple(
        replace(seat, sampling=Sampling(seed=each).over(overrides.panel_sampling).over(seat.sampling))
        for seat, each in zip(chosen, seeds, strict=True)
    )


def _quorum(ensemble: Ensemble, overrides: Overrides, panel_size: int) -> int:
    if overrides.quorum is None:
        return ensemble.quorum_of(panel_size)
    if overrides.quorum > panel_size:
        message = f"{overrides.quorum} answers cannot come from a panel of {panel_size}."
        raise RequestError(message, "fusion.min_successful_responses")
    return overrides.quorum


def _require_models(names: Sequence[str], models: Collection[str], param: str) -> None:
    for name in names:
        if name.startswith("cappella/"):
            message = f"{name!r} is an ensemble, and an ensemble can be neither a member nor a judge."
            raise RequestError(message, param, "nested_ensemble")
        if name not in models:
            raise UnknownModel(name, sorted(models), param)
