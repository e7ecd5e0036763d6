"""What would make a plan that fits better, as YAML to paste: contexts for a typical run, and more runs at once."""

from cappella.config import Config
from cappella.placement import advice, changes, estimate
from cappella.placement.changes import Change, Trial
from cappella.placement.machine import Machine
from cappella.placement.planner import Plan

ENOUGH_RUNS = 8
"""With so many runs at once, more are not proposed."""
WORTH = 1.3
"""So many times the runs at once must a change give."""


def of(config: Config, machine: Machine, plan: Plan) -> list[Change]:
    """Changes to a config that has this plan."""
    trial = Trial(*advice.measured(config, machine))
    both = (_longer_contexts(trial, config, plan), _more_runs(trial, config, plan))
    return [change for change in both if change]


def _longer_contexts(trial: Trial, config: Config, plan: Plan) -> Change | None:
    """Contexts that hold a typical run, if there is room and the models take them."""
    needs: dict[str, int] = {}
    for each in estimate.estimates(config, plan).values():
        for name, tokens in each.short.items():
            needs[name] = max(tokens, needs.get(name, 0))
    if not needs or any(tokens > trial.footprints[name].own.max_tokens for name, tokens in needs.items()):
        return None
    rounded = {name: -(-tokens // 1024) * 1024 for name, tokens in needs.items()}
    lengths = {name: min(tokens, trial.footprints[name].own.max_tokens) for name, tokens in rounded.items()}
    models = {
        name: each.model.model_copy(update={"max_model_len": lengths.get(name, each.model.max_model_len)})
        for name, each in trial.footprints.items()
    }
    return trial.attempt("contexts that hold a typical run", changes.with_models(trial.footprints, models))


def _more_runs(trial: Trial, config: Config, plan: Plan) -> Change | None:
    """A KV cache in fp8, where it gives more runs at once and these are few."""
    if not changes.reads_fp8_cache(trial.machine):
        return None
    change = trial.with_each("", changes.with_fp8_cache)
    if change is None:
        return None
    before, after = (estimate.estimates(config, each) for each in (plan, change.plan))
    gained = [
        f"cappella/{name}: {after[name].runs_at_once:.1f} runs at once instead of {old.runs_at_once:.1f}"
        for name, old in before.items()
        if old.runs_at_once < ENOUGH_RUNS and after[name].runs_at_once >= WORTH * old.runs_at_once
    ]
    if not gained:
        return None
    return trial.with_each(f"a KV cache in fp8, a little less exact: {', '.join(gained)}", changes.with_fp8_cache)
