"""Which answers count as one: those of one value, and in free text those that the judge or embeddings find to say the same."""

import asyncio
from collections.abc import Mapping, Sequence

from cappella.config.abilities import groups_by
from cappella.ensemble import grouping
from cappella.ensemble.agreement import work
from cappella.ensemble.context import RunContext
from cappella.ensemble.gate import SHORTCUT_SHARE
from cappella.ensemble.run import Answer, Grouped
from cappella.ensemble.scoring import recorded
from cappella.errors import EngineError
from cappella.extraction.extractors import Reading
from cappella.extraction.spelling import normal_text
from cappella.threads import off_loop_if_large
from cappella.vocabulary import Extractor

FREE_TEXT: Sequence[Extractor] = ("text", "last_line")
"""Extractors whose values are words: two of them may say the same."""


async def grouped(ctx: RunContext) -> Reading:
    """The values of the answers, where those that say the same have one, as far as `agreement` asks; `ctx.grouped` tells how.

    If the call for it fails or is slow, their words count, and `ctx.failure_reason` says why.
    """
    read, by = await ctx.reading(), groups_by(ctx.settings)
    different = _first_of_each_value(ctx.answers, read.values)
    if by == "words" or read.extractor not in FREE_TEXT or len(different) < 2:
        return read
    if ctx.grouped is None:
        ask = _by_judge if by == "judge" else _by_embedding
        try:
            async with asyncio.timeout(SHORTCUT_SHARE * ctx.deadline.remaining_s):
                ctx.grouped = Grouped(by, _with_same_values(await ask(ctx, different, read), read.values))
        except (EngineError, TimeoutError) as error:
            ctx.failure_reason = error.reason if isinstance(error, EngineError) else "timeout"
            groups = _with_same_values([[answer.name] for answer in different], read.values)
            ctx.grouped = Grouped("words", groups, ctx.failure_reason)
    first_of = {name: group[0] for group in ctx.grouped.groups for name in group}
    return Reading(read.extractor, {name: value and read.values[first_of[name]] for name, value in read.values.items()})


def _first_of_each_value(answers: Sequence[Answer], values: Mapping[str, str | None]) -> list[Answer]:
    firsts: dict[str, Answer] = {}
    for answer in answers:
        if value := values.get(answer.name):
            firsts.setdefault(value, answer)
    return list(firsts.values())


async def _by_judge(ctx: RunContext, answers: Sequence[Answer], _: Reading) -> list[list[str]]:
    """The judge's groups, who reads whole answers, or those of the next judge that is up. Raises EngineError."""
    while True:
        try:
            return await ctx.judge.group(answers)
        except EngineError as error:
            if not await ctx.replace_judge(error):
                raise


async def _by_embedding(ctx: RunContext, answers: Sequence[Answer], read: Reading) -> list[list[str]]:
    """The groups of alike embeddings. Raises EngineError."""
    least, model = ctx.settings.agreement.alike, ctx.settings.embedder
    # Set wherever embeddings count: the config and each request are refused without.
    assert least
    assert model
    texts = await off_loop_if_large(work(answers), _counting, answers, read.values)
    found = await recorded(ctx, "agreement", model, ctx.engines[model].embed(texts))
    names, vectors = [answer.name for answer in answers], found.vectors
    size = len(names) ** 2 * max(map(len, vectors))
    return await off_loop_if_large(size, grouping.alike, names, vectors, least)


def _counting(answers: Sequence[Answer], values: Mapping[str, str | None]) -> list[str]:
    """What counts of each answer: the value that was read, such as "paris"; as it was written where that is all of it.

    Two answers of other values may have nearly all their words in common, which would make their embeddings alike.
    """
    return [
        answer.content if value is None or value == normal_text(answer.content) else value
        for answer, value in ((answer, values[answer.name]) for answer in answers)
    ]


def _with_same_values(groups: Sequence[Sequence[str]], values: Mapping[str, str | None]) -> list[list[str]]:
    """The groups, with all answers that have the values of those in them."""
    return [
        [name for first in group for name, value in values.items() if value is not None and value == values[first]]
        for group in groups
    ]
