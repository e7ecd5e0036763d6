"""The config that the figures suggest: panel, strategy, samples, and presets by category, with the figures in comments."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from ipaddress import ip_address
from math import log
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from cappella.config import load, yaml_source
from cappella.evaluation import verdict as verdicts
from cappella.evaluation.ensemble import Ensemble, Member
from cappella.evaluation.findings import BEST, MAJORITY, Findings, Group, Line
from cappella.evaluation.outcomes import Results
from cappella.evaluation.report import Report, probability, write
from cappella.evaluation.statistics import LEVEL, compare
from cappella.evaluation.verdict import percent, points
from cappella.evaluation.ways import JUDGE
from cappella.types import Json
from cappella.vocabulary import STRATEGIES

MAX_SAMPLES = 16
MIN_CATEGORY = 20
"""Questions of a category below which no preset is proposed for it."""


def propose(report: Report, results: Results, ensemble: Ensemble, config: Path | None, models: Json, out: Path) -> None:
    """Write the config to `out`, and load it again. Raises ConfigError."""
    raw = _raw(config, models)
    original = dict(raw.get("ensembles", {}).get(ensemble.name, {}))
    body, comments = _ensemble(report, results, ensemble, original)
    raw["ensembles"] = {**raw.get("ensembles", {}), ensemble.name: body}
    lines = [f"# {line}" for line in comments]
    write(out, "\n".join(lines) + "\n" + yaml.safe_dump(raw, sort_keys=False, allow_unicode=True, width=120))
    load.load(out)


def _raw(config: Path | None, models: Json) -> dict[str, Any]:
    """The config as it was written, with absolute paths; without one the models are those of the server."""
    if config is None:
        hosts = {urlsplit(model["url"]).hostname for model in models.values()}
        away = [host for host in hosts if host and _is_away(host)]
        return {"models": models, **({"server": {"may_reach": away}} if away else {})}
    _, raw = yaml_source.parse(config, config.read_text(encoding="utf-8"))
    home = config.parent.resolve()
    raw = dict(raw)
    raw["models"] = {name: _absolute(dict(model), home) for name, model in raw["models"].items()}
    if isinstance(raw.get("server"), dict):
        raw["server"] = {key: _path_in(value, home) for key, value in raw["server"].items()}
    return raw


def _is_away(host: str) -> bool:
    """Whether it is an address of another machine, which a config has to allow."""
    try:
        return not ip_address(host).is_loopback
    except ValueError:
        return False


def _absolute(model: dict[str, Any], home: Path) -> dict[str, Any]:
    model = {
        key: _path_in(value, home) if key in ("weights", "card", "key_file") else value for key, value in model.items()
    }
    if "adapters" in model:
        model["adapters"] = {name: _path_in(path, home) for name, path in model["adapters"].items()}
    return model


def _path_in(value: Any, home: Path) -> Any:
    if isinstance(value, str) and (home / value).exists() and value:
        return str(home / value)
    return {key: _path_in(each, home) for key, each in value.items()} if isinstance(value, dict) else value


def _ensemble(report: Report, results: Results, ensemble: Ensemble, original: Json) -> tuple[Json, list[str]]:
    findings, decided = report.findings, report.verdict
    comments = [f"By cappella eval: {report.about.get('questions', '')}", *decided.sentences]
    kept = _kept(findings, ensemble, decided.way, comments)
    best = ensemble.named(max(findings.best, key=lambda name: findings.best[name]))
    body: dict[str, Any] = {
        key: value for key, value in original.items() if key not in ("samples", "strategy", "panel", "weights")
    }
    body["judge"] = original.get("judge", ensemble.judge)
    top = next((line for line in findings.runs if line.name == decided.way), None)
    if decided.advice == verdicts.SAMPLE and top is not None and top.consistency_samples:
        count = min(MAX_SAMPLES, max(2, top.consistency_samples))
        comments.append(f"{best.name}: {count} samples and a vote, at about the tokens of {top.name}")
        body |= {"panel": [_seat(best, count)], "strategy": "vote", "analysis": "off"}
    elif decided.advice == verdicts.JUDGE_ALONE:
        comments.append(f"{ensemble.judge} alone: {percent(findings.line(JUDGE).accuracy.mean)}")
        body |= {"panel": [{"model": ensemble.judge, **ensemble.judge_sampling}], "strategy": "vote", "analysis": "off"}
    elif decided.advice == verdicts.NONE or top is None:
        comments.append(f"{best.name} alone: {percent(findings.line(BEST).accuracy.mean)}")
        body |= {"panel": [_seat(best)], "strategy": "vote", "analysis": "off"}
    else:
        comments.append(f"{decided.way}: {_figures(top)}")
        body |= {"panel": _panel(kept), **_options(top.name, original)}
    if len(body["panel"]) > 1:
        body["weights"] = _weights(results, {_model_of(seat) for seat in body["panel"]})
    # A quorum or a preset of a larger panel would not load.
    size = sum(_answers_of(seat, body) for seat in body["panel"])
    if int(body.get("quorum") or 0) > size:
        del body["quorum"]
    presets = {name: preset for name, preset in dict(original.get("presets", {})).items() if _fits(preset, size)}
    presets |= _by_category(findings, results, decided.way, comments)
    if presets:
        body["presets"] = presets
    return _without_weights_of_nobody(body), comments


def _without_weights_of_nobody(body: Json) -> Json:
    """The same, where neither it nor a preset has a weight of a model that is on none of its panels any more."""
    presets = {name: preset for name, preset in body.get("presets", {}).items() if isinstance(preset, dict)}
    seats = [seat for part in (body, *presets.values()) for seat in part.get("panel", ())]
    models = {_model_of(seat) for seat in seats}

    def cleared(part: Json) -> Json:
        weights = {name: each for name, each in (part.get("weights") or {}).items() if name.partition("#")[0] in models}
        others = {key: value for key, value in part.items() if key != "weights"}
        return {**others, "weights": weights} if weights else others

    known = {name: cleared(preset) for name, preset in presets.items()}
    return {**cleared(body), **({"presets": {**body["presets"], **known}} if known else {})}


def _weights(results: Results, models: AbstractSet[str]) -> Json:
    """The log-odds of a right answer by model, each as if it had one more right and one more wrong one."""
    right, wrong = Counter[str](), Counter[str]()
    for name, row in results.members.items():
        model = results.models[name]
        right[model] += sum(each.right for each in row if each is not None)
        wrong[model] += sum(not each.right for each in row if each is not None)
    return {
        each: round(log((right[each] + 1) / (wrong[each] + 1)), 2) for each in results.models.values() if each in models
    }


def _kept(findings: Findings, ensemble: Ensemble, way: str | None, comments: list[str]) -> list[Member]:
    """The members that the figures do not advise to drop; by the way that won, if it was asked without each."""
    asked = {seat.way for seat in findings.seats}
    judged_by = way if way in asked else MAJORITY
    kept = []
    for member in ensemble.members:
        seats = [seat for seat in findings.seats if seat.member == member.name and seat.way == judged_by]
        for seat in seats:
            change = points(seat.difference.difference.mean)
            comments.append(
                f"{seat.member}: {seat.advice} ({judged_by} {change} points with it, p {probability(seat.difference.p)})"
            )
        if not any(seat.advice == "drop" for seat in seats):
            kept.append(member)
    return kept or list(ensemble.members)


def _panel(members: Sequence[Member]) -> list[Json]:
    """The seats of these answers: those of one seat are its samples."""
    by_seat: dict[str, list[Member]] = {}
    for member in members:
        by_seat.setdefault(member.name.partition("~")[0], []).append(member)
    return [_seat(each[0], len(each)) for each in by_seat.values()]


def _seat(member: Member, samples: int = 1) -> Json:
    seat = {"model": member.model, **member.sampling, **({"system": member.system} if member.system else {})}
    if samples == 1:
        return seat
    return {**seat, "samples": samples, "temperature": seat.get("temperature") or 0.7}


def _options(way: str, original: Json) -> Json:
    """The run options of a way: of a strategy its name, of a preset what the preset sets, its panel and judge included."""
    if way == MAJORITY:
        return {"strategy": "vote"}
    if way in STRATEGIES:
        return {"strategy": way}
    preset = dict(original.get("presets", {}).get(way.removeprefix("preset:"), {}))
    # A gate of a preset is a mode; that of an ensemble has a model, and stays.
    options = {key: value for key, value in preset.items() if key != "gate"}
    return {"samples": original["samples"], **options} if "panel" in preset and "samples" in original else options


def _model_of(seat: Any) -> str:
    return str(seat["model"] if isinstance(seat, dict) else seat)


def _answers_of(seat: Any, body: Json) -> int:
    own = seat.get("samples") if isinstance(seat, dict) else None
    return int(own or body.get("samples") or 1)


def _fits(preset: Any, size: int) -> bool:
    return not isinstance(preset, dict) or "panel" in preset or int(preset.get("quorum") or 0) <= size


def _by_category(findings: Findings, results: Results, way: str | None, comments: list[str]) -> dict[str, Json]:
    """A preset for each category whose best way differs from the whole's, chosen and measured on its own questions."""
    made: dict[str, Json] = {}
    categories = [question.category for question in results.questions]
    for category in dict.fromkeys(categories):
        chosen = [each == category for each in categories]
        if not category or sum(chosen) < MIN_CATEGORY or all(chosen):
            continue
        top, p = _best_way(findings, [i for i, is_in in enumerate(chosen) if is_in])
        share, alone = (_share(findings.line(name).categories.get(category)) for name in (top, BEST))
        said = f"{category} ({sum(chosen)} questions): {top} {share}, the best member {alone}, p {probability(p)}"
        comments.append(said)
        if p < LEVEL and top != way and (top in STRATEGIES or top == MAJORITY):
            made[f"for-{_slug(category)}"] = {"strategy": "vote" if top == MAJORITY else top}
        elif top == BEST and p < LEVEL:
            member = max(findings.best, key=lambda name: findings.best[name])
            made[f"for-{_slug(category)}"] = {"panel": [results.models[member]], "strategy": "vote", "analysis": "off"}
    return made


def _share(group: Group | None) -> str:
    return percent(group.accuracy) if group else "no answer"


def _best_way(findings: Findings, numbers: Sequence[int]) -> tuple[str, float]:
    """The most accurate way on these questions, and the probability that it is no better than the best member.

    Where the best member leads, the probability that it is no better than the most accurate run.
    """
    on: Mapping[str, list[bool | None]] = {
        name: [None if (each := findings.rows[name][i]) is None else each.right for i in numbers]
        for name in (BEST, *(line.name for line in findings.runs))
    }
    shares = {name: sum(bool(each) for each in row) for name, row in on.items()}
    leader = max(shares, key=lambda name: shares[name])
    runner = max((name for name in shares if name != BEST), key=lambda name: shares[name]) if len(shares) > 1 else BEST
    comparison = compare(on[leader], on[runner if leader == BEST else BEST])
    # Corrected for having looked at every way.
    return leader, min(1.0, comparison.p * max(1, len(on) - 1)) if comparison else 1.0


def _slug(category: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", category).strip("-")[:50] or "other"


def _figures(line: Line) -> str:
    return f"{percent(line.accuracy.mean)} of {line.n}, {line.tokens:.0f} tokens and {line.seconds:.2f} s per question"
