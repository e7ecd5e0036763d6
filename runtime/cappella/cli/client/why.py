"""Why an answer is what it is: whose words are in it, what the judge found, where the time went."""

from collections.abc import Iterator

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.padding import Padding
from rich.text import Text

from cappella.cli.client.analysis import AnalysisBlock
from cappella.cli.client.attribution import Passage, passages
from cappella.cli.client.request import waterfall
from cappella.cli.client.run_view import View
from cappella.cli.client.text import safe


class Why:
    """All of it, of a run that has ended."""

    def __init__(self, view: View) -> None:
        self._view = view

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from self._choice()
        yield from self._support()
        if self._view.analysis:
            yield Text("\nThe judge's analysis", "bold underline")
            yield AnalysisBlock(self._view.analysis)
        if drawn := waterfall(self._view):
            yield Text("\nWhere the time went", "bold underline")
            yield drawn

    def _choice(self) -> Iterator[Text]:
        fusion = self._view.fusion
        if gate := fusion.get("gate"):
            yield Text(safe(f"The gate: {gate['model']}, {gate['reason']}"))
        if chosen := fusion.get("chosen"):
            shares = fusion.get("probabilities") or {}
            sure = ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
            yield Text(f"It is the answer of {chosen}, word for word{f' (the judge: {sure})' if sure else ''}.")
        for name, voters in (fusion.get("votes") or {}).items():
            yield Text(f"{name}: stood for by {', '.join(voters)}")
        if ranking := fusion.get("ranking"):
            yield Text(f"The members' own ranking: {', '.join(ranking)}")
        for failed in fusion.get("failed_models", ()):
            yield Text(safe(f"{failed['model']} gave no answer: {failed['error']}"), "red")

    def _support(self) -> Iterator[RenderableType]:
        said = {name: member.text for name, member in self._view.members.items() if member.text}
        if not said:
            yield Text("No panel was asked.")
            return
        yield Text("Who said it, by words in common and not by meaning", "bold underline")
        for passage in passages(self._view.answer, said):
            yield Text(safe(passage.text))
            yield Padding(_supporters(passage), (0, 0, 0, 2))


def _supporters(passage: Passage) -> Text:
    if not passage.supporters:
        return Text("nobody: these are the judge's own words", "yellow")
    return Text(", ".join(f"{name} {share:.0%}" for name, share in passage.supporters), "cyan")
