"""A folder of documents as a tool server: its tools `search` and `read`, and the index that follows the folder."""

import asyncio
import hashlib
import logging
import sqlite3
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from cappella.config import Documents
from cappella.config.paths import state_dir
from cappella.engines.base import Engine
from cappella.tools.base import STOPPED, Offer, Passage, Relation, Tool, ToolResult
from cappella.tools.documents import arguments, terms
from cappella.tools.documents.arguments import BadArguments
from cappella.tools.documents.damage import is_damage
from cappella.tools.documents.embedding import embed_missing
from cappella.tools.documents.excerpt import excerpt
from cappella.tools.documents.index_errors import IndexBusy, IndexUnusable
from cappella.tools.documents.index_rows import StoredPassage
from cappella.tools.documents.scan import Scan, Scanner
from cappella.tools.documents.search import Searcher
from cappella.types import Json

SCAN_INTERVAL_S = 60.0
"""A scan of 5,000 files that have not changed takes well below a second, and needs no library to watch folders."""
CALL_TIMEOUT_S = 30.0

logger = logging.getLogger("cappella")


def index_path(name: str, config: Documents) -> Path:
    """The file of the index: the one of the config, or one in the user's state for this name, folder and kind of words."""
    if config.index:
        return config.index
    made_for = f"{config.folder.resolve()}\0{terms.tokenizer(config.languages)}"
    mark = hashlib.sha256(made_for.encode()).hexdigest()[:12]
    return state_dir() / "documents" / f"{name}-{mark}.sqlite"


def open_documents(
    name: str, config: Documents, engines: Mapping[str, Engine] = {}, interval_s: float = SCAN_INTERVAL_S
) -> "DocumentServer":
    """A server of these documents, not started. `engines` has the embedder and the reranker by their names."""
    embedder, reranker = (engines.get(each) if each else None for each in (config.embedder, config.reranker))
    return DocumentServer(name, config, embedder, reranker, interval_s)


class DocumentServer(Offer):
    """See `ToolServer`. `start` begins to bring the index up to date, now and then at each interval, until `stop`."""

    def __init__(
        self, name: str, config: Documents, embedder: Engine | None, reranker: Engine | None, interval_s: float
    ) -> None:
        super().__init__(name)
        self._config, self._interval_s = config, interval_s
        self._embedder = embedder
        self._path = index_path(name, config)
        self._searcher = Searcher(self._path, config.languages, embedder, reranker)
        self._writer = ThreadPoolExecutor(1, "documents-index")
        self._scanner: Scanner | None = None
        self._following: asyncio.Task[None] | None = None
        self._has_tried = asyncio.Event()
        self._was_found_damaged = False
        self.last_scan: Scan | None = None

    def _offered(self) -> Sequence[Tool]:
        return arguments.tools(self._name, self._config.max_passages)

    async def start(self) -> None:
        """Begin to follow the folder, in the background."""
        if self._following is None:
            self._following = asyncio.create_task(self._follow())

    async def tried(self) -> None:
        """Returns when it serves, or its first scan has failed."""
        await self._has_tried.wait()

    async def stop(self) -> None:
        """End that; returns when nothing of it is left running."""
        if self._scanner:
            self._scanner.stop()
        if self._following:
            self._following.cancel()
            await asyncio.wait({self._following})
            self._following = None
        self._problem = STOPPED
        # The scan ends soon after it was told to.
        await asyncio.to_thread(self._writer.shutdown)
        await self._searcher.close()

    async def call(self, tool: str, arguments: Json) -> ToolResult:
        """See `ToolServer.call`."""
        try:
            async with asyncio.timeout(CALL_TIMEOUT_S):
                if tool == "search":
                    return await self._search(arguments)
                if tool == "read":
                    return await self._read(arguments)
        except BadArguments as error:
            return ToolResult(str(error), is_error=True)
        except (IndexUnusable, sqlite3.Error) as error:
            self._was_found_damaged |= is_damage(error)
            # Not its words: they may quote what was searched for.
            what = error.sqlite_errorname if isinstance(error, sqlite3.Error) else error
            logger.warning("documents %s cannot be searched: %s", self._name, what)
            return ToolResult("The documents cannot be searched now.", is_error=True)
        except TimeoutError:
            return ToolResult("The search took too long.", is_error=True)
        except Exception as error:  # noqa: BLE001 - the Protocol: a call raises nothing
            logger.warning("documents %s: a call failed: %s", self._name, type(error).__name__)
            return ToolResult("The documents cannot be searched now.", is_error=True)
        return ToolResult(f"There is no tool {tool!r} here: the tools are search and read.", is_error=True)

    async def _search(self, given: Json) -> ToolResult:
        query, limit = arguments.of_search(given, self._config.max_passages)
        hits = await self._searcher.search(query, limit, self._config.related)
        said = "" if hits.passages else "Nothing found: no document has these words. Try others."
        text = " ".join([*filter(None, [said]), *(f"({note})" for note in hits.notes)])
        relations = [Relation(at, each.to, each.by) for at, each in enumerate(hits.related, start=len(hits.passages))]
        passages = [*hits.passages, *(each.passage for each in hits.related)]
        return ToolResult(text, False, self._told(passages), relations)

    async def _read(self, given: Json) -> ToolResult:
        path, place = arguments.of_read(given)
        # Models read paths below the documents' name.
        path = path.removeprefix(f"{self._name}/")
        passages, problem, is_cut = await self._searcher.passages_of(path)
        if not passages:
            reason = f": {problem}" if problem else ": take a path from the results of search"
            return ToolResult(f"There is no text of {path!r} here{reason}.", is_error=True)
        part, more = excerpt(passages, place, is_cut)
        return ToolResult(more, not part, self._told(part))

    def _told(self, passages: Sequence[StoredPassage]) -> list[Passage]:
        return [Passage(self._name, each.path, each.place, each.text, each.heading or each.title) for each in passages]

    async def _follow(self) -> None:
        while True:
            await self._update()
            await asyncio.sleep(self._interval_s)

    async def _update(self) -> None:
        """Scan once, then embed what is new. A failure is the server's `problem` until a scan succeeds."""
        self._scanner = Scanner(
            self._config.folder, self._path, self._config.languages, is_verified=self._was_found_damaged
        )
        try:
            await self._serve_what_is_there()
            self.last_scan = await asyncio.get_running_loop().run_in_executor(self._writer, self._scanner.scan)
            self._was_found_damaged = False
            if aside := self.last_scan.damaged:
                logger.warning(
                    "documents %s: the index was damaged, is kept as %s, and was made anew", self._name, aside
                )
            self._serve()
            if self._embedder:
                await embed_missing(self._path, self._config.languages, self._embedder, self._writer)
        except IndexBusy:
            # It does the same work, and what it has done so far can be searched.
            self._serve()
        except Exception as error:  # noqa: BLE001 - one scan that fails, whatever the reason, is not the last one
            self._was_found_damaged |= is_damage(error)
            if self._problem is None or str(error) not in self._problem:
                logger.warning("documents %s cannot be indexed: %r", self._name, error)
            self._problem = f"its documents cannot be indexed: {error}"
            self._has_tried.set()

    async def _serve_what_is_there(self) -> None:
        """An index of an earlier time serves while the folder is scanned."""
        # If it cannot be opened, the scan makes it or says why not.
        with suppress(IndexUnusable, sqlite3.Error):
            if not self._has_tried.is_set() and (await self._searcher.counts())[1]:
                self._serve()

    def _serve(self) -> None:
        self._problem = None
        self._has_tried.set()
