"""A run on a terminal: panes that fit the screen while it lasts, then the answer, which stays in the scrollback."""

import asyncio
from types import TracebackType
from typing import Self

from rich.console import Console, RenderableType
from rich.live import Live

from cappella.cli.client.analysis import AnalysisBlock
from cappella.cli.client.http import Json
from cappella.cli.client.markdown import MarkdownPrinter
from cappella.cli.client.panes import Panes, Writing, head
from cappella.cli.client.text import safe
from cappella.run_view import View

REFRESH_S = 0.1


class LiveRun:
    """Draws a view until the run ends; finished text is printed above the moving part.

    With `whole_members` the members' answers stay on the screen in full, not only a line for each.
    """

    def __init__(self, console: Console, view: View, whole_members: bool) -> None:
        self._console = console
        self._view = view
        self._whole_members = whole_members
        self._heard = 0
        self._pending = ""
        self._answer = MarkdownPrinter(console)
        self._told_panel = self._told_analysis = False
        self._live = Live(
            console=console,
            get_renderable=self._moving,
            auto_refresh=False,
            transient=True,
            vertical_overflow="crop",
        )
        self._ticking: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._live.start()
        # Rich's own refresh is a thread, which would read the view while a chunk changes it.
        self._ticking = asyncio.create_task(self._tick())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._ticking
        self._ticking.cancel()
        # Not `await self._ticking`: a caller that is cancelled at this very moment must get its CancelledError.
        await asyncio.wait({self._ticking})
        if kind is None:
            self._print_panel()
            self._print_answer(len(self._pending))
        else:
            # When the run is cancelled, the last frame stays on the screen.
            self._live.transient = not (self._view.members or self._view.answer)
        self._live.stop()
        if kind is None:
            self._print_analysis()

    def add(self, chunk: Json) -> None:
        """Add one chunk of the stream."""
        self._view.add(chunk)
        if self._view.answer_at:
            self._print_panel()
            self._pending += safe(self._view.answer[self._heard :])
            self._heard = len(self._view.answer)
            self._print_answer(self._answer.printable(self._pending))

    async def _tick(self) -> None:
        while True:
            self._live.refresh()
            await asyncio.sleep(REFRESH_S)

    def _moving(self) -> RenderableType:
        if not self._view.answer_at:
            return Panes(self._view)
        return Writing(self._view, self._pending)

    def _print_panel(self) -> None:
        """Print the members' results once, and the analysis if it came before the answer."""
        if self._told_panel:
            return
        self._told_panel = True
        for member in self._view.members.values():
            self._console.print(head(self._view, member, self._console.width))
            if self._whole_members and member.text:
                MarkdownPrinter(self._console).print(safe(member.text.strip("\n")))
        self._print_analysis()
        if self._view.members:
            self._console.print()

    def _print_analysis(self) -> None:
        if self._view.analysis and not self._told_analysis:
            self._told_analysis = True
            self._console.print()
            self._console.print(AnalysisBlock(self._view.analysis))

    def _print_answer(self, length: int) -> None:
        """Print this many of the pending characters for good."""
        if length:
            complete, self._pending = self._pending[:length], self._pending[length:]
            self._answer.print(complete)
