"""Choices of the judge: between two answers in both orders, or among all with each of them at several places."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from statistics import fmean

from cappella.ensemble import prompts
from cappella.ensemble.candidates import Candidates
from cappella.ensemble.choice import CHOICE_TOKENS, probabilities
from cappella.ensemble.judge import TOP_LOGPROBS
from cappella.ensemble.judge_calls import JudgeCalls, Question
from cappella.ensemble.judgement import MAX_ORDERS, Preference, Shares
from cappella.ensemble.run import Answer
from cappella.ensemble.together import together
from cappella.types import OutputFormat


async def prefer(calls: JudgeCalls, candidates: Candidates, pair: tuple[Answer, Answer]) -> Preference:
    """The judge's preference between two of the candidates, asked in both orders. Raises EngineError."""
    both = await calls.read("preference", replace(candidates, answers=pair), CHOICE_TOKENS, calls.settings.criteria)
    orders = await together(partial(choose, calls, order) for order in both.balanced)
    return Preference((pair[0].name, pair[1].name), (orders[0], orders[1]))


async def choose_in_turns(calls: JudgeCalls, candidates: Candidates) -> list[Shares]:
    """The judge's choices among all, each time with others in front. Raises EngineError."""
    fitting = await calls.read("ranking", candidates, CHOICE_TOKENS, calls.settings.criteria)
    count = len(fitting.answers)
    orders = min(count, MAX_ORDERS)
    turns = [i * count // orders for i in range(orders)]
    turned = [replace(fitting, answers=[*fitting.answers[at:], *fitting.answers[:at]]) for at in turns]
    return await together(partial(choose, calls, each) for each in turned)


async def choose(calls: JudgeCalls, candidates: Candidates) -> Shares:
    """One choice: a letter, and the probability of each. Raises EngineError."""
    labels, criteria = candidates.labels, calls.settings.criteria
    letters = list(labels)
    question = Question("choice", OutputFormat("structured_outputs", {"choice": letters}), CHOICE_TOKENS, TOP_LOGPROBS)
    own_texts = calls.settings.judge_texts
    messages = prompts.choice_messages(
        calls.prompt.messages, candidates.texts, candidates.nonce, criteria, texts=own_texts
    )
    found = await calls.ask(
        question, messages, candidates.nonce, lambda call: probabilities(call.completions[0].logprobs, letters)
    )
    return Shares({labels[letter]: share for letter, share in found.items()})


def means(choices: Sequence[Shares]) -> Mapping[str, float]:
    """Each answer's mean probability over all choices."""
    by_name: dict[str, list[float]] = defaultdict(list)
    for each in choices:
        for name, share in each.by_name.items():
            by_name[name].append(share)
    return {name: fmean(shares) for name, shares in by_name.items()}


def won(preferences: Sequence[Preference]) -> Mapping[str, float]:
    """The share of its pairs that each answer won; a tie is half of one."""
    by_name: dict[str, list[float]] = defaultdict(list)
    for each in preferences:
        for name in each.names:
            by_name[name].append(0.5 if each.preferred is None else float(each.preferred == name))
    return {name: fmean(shares) for name, shares in by_name.items()}
