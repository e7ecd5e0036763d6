"""Explains an answer: which member said what, the judge's analysis, and the timings."""

from collections.abc import Iterator

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.padding import Padding
from rich.text import Text

from cappella.cli.client.analysis import AnalysisBlock
from cappella.cli.client.attribution import Passage, passages
from cappella.cli.client.text import safe
from cappella.cli.client.waterfall import Waterfall
from cappella.run_view import View


class Why:
    """The explanation of a finished run."""

    def __init__(self, view: View) -> None:
        self._view = view

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from self._choice()
        yield from self._support()
        if self._view.analysis:
            yield Text("\nThe judge's analysis", "bold underline")
            yield AnalysisBlock(self._view.analysis)
        # A single model leaves no trace.
        if self._view.fusion and self._view.usage:
            yield Text("\nWhere the time went", "bold underline")
            yield Waterfall(self._view.fusion, self._view.usage)

    def _choice(self) -> Iterator[Text]:
        fusion = self._view.fusion
        if gate := fusion.get("gate"):
            yield Text(safe(f"The gate: {gate['model']}, {gate['reason']}"))
        if chosen := fusion.get("chosen"):
            shares = fusion.get("probabilities") or {}
            sure = ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
            yield Text(f"The answer is {chosen}'s, word for word{f' (the judge: {sure})' if sure else ''}.")
        if merged := fusion.get("merged"):
            yield Text(f"The answer joins the fields that most gave: those of {', '.join(merged)}.")
        for name, score in (fusion.get("scores") or {}).items():
            yield Text(f"{name}: {'longer than the judge can read' if score is None else f'score {score:.3g}'}")
        if tied := fusion.get("tied"):
            yield Text(f"The best score is that of {', '.join(tied)}: the first was taken.")
        for name, voters in (fusion.get("votes") or {}).items():
            yield Text(f"{name}: votes of {', '.join(voters)}")
        if ranking := fusion.get("ranking"):
            yield Text(f"The members' own ranking: {', '.join(ranking)}")
        for failed in fusion.get("failed_models", ()):
            yield Text(safe(f"{failed['model']} gave no answer: {failed['error']}"), "red")

    def _support(self) -> Iterator[RenderableType]:
        answers = {name: member.text for name, member in self._view.members.items() if member.text}
        if not answers:
            yield Text("The panel was not asked.")
            return
        yield Text("Who said what, by words in common", "bold underline")
        for passage in passages(self._view.answer, answers):
            yield Text(safe(passage.text))
            yield Padding(_supporters(passage), (0, 0, 0, 2))


def _supporters(passage: Passage) -> Text:
    if not passage.supporters:
        return Text("no member: the judge's own words", "yellow")
    return Text(", ".join(f"{name} {share:.0%}" for name, share in passage.supporters), "cyan")
