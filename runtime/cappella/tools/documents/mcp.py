"""Documents as an MCP server over standard input and output, for agents."""

import asyncio
from contextlib import suppress
from typing import Annotated, Any

from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import CallToolResult, TextContent, ToolAnnotations
from pydantic import Field

from cappella.config import Documents
from cappella.tools.base import Relation, ToolResult
from cappella.tools.documents.arguments import DEFAULT_LIMIT, MAX_LIMIT
from cappella.tools.documents.server import DocumentServer, open_documents
from cappella.types import Json
from cappella.version import __version__

FIRST_SCAN_WAIT_S = 20.0
READS = ToolAnnotations(read_only_hint=True, open_world_hint=False)
Query = Annotated[str, Field(min_length=1, description="A question or words to look for.")]
Limit = Annotated[int, Field(ge=1, le=MAX_LIMIT, description="Passages at most.")]
Path = Annotated[str, Field(min_length=1, description="The path of a file, as search gives it.")]
Place = Annotated[str | None, Field(description="Where, as search gives it: page 3, lines 10-14.")]


async def run_stdio(name: str, documents: Documents) -> None:
    """Serve these documents until the input ends."""
    server = open_documents(name, documents)
    await server.start()
    try:
        await _server_of(server).run_stdio_async()
    finally:
        await server.stop()


def _server_of(documents: DocumentServer) -> MCPServer[Any]:
    instructions = f"The documents of {documents.name}: search them, then read around what you found."
    mcp: MCPServer[Any] = MCPServer(
        f"cappella-{documents.name}", instructions=instructions, version=__version__, log_level="WARNING"
    )

    @mcp.tool(annotations=READS)
    async def search(query: Query, limit: Limit = DEFAULT_LIMIT) -> CallToolResult:
        """Search the documents and get passages with their paths and places."""
        return await _called(documents, "search", {"query": query, "limit": limit})

    @mcp.tool(annotations=READS)
    async def read(path: Path, place: Place = None) -> CallToolResult:
        """Read a file of the documents around a place."""
        return await _called(documents, "read", {"path": path, "place": place})

    return mcp


async def _called(documents: DocumentServer, tool: str, arguments: Json) -> CallToolResult:
    """The result as text, and its passages as an object. Raises ToolError."""
    with suppress(TimeoutError):
        async with asyncio.timeout(FIRST_SCAN_WAIT_S):
            await documents.tried()
    if documents.problem:
        raise ToolError(f"Nothing can be searched now: {documents.problem}.")
    result = await documents.call(tool, arguments)
    if result.is_error:
        raise ToolError(result.text)
    passages = [{"path": p.path, "place": p.place, "title": p.title, "text": p.text} for p in result.passages]
    for each in result.relations:
        passages[each.passage]["related"] = _related(result, each)
    return CallToolResult(
        content=[TextContent(type="text", text=_text(result))], structured_content={"passages": passages}
    )


def _related(result: ToolResult, relation: Relation) -> str:
    return f"has {relation.by}, as {result.passages[relation.to].path} does"


def _text(result: ToolResult) -> str:
    notes = {each.passage: f" ({_related(result, each)})" for each in result.relations}
    passages = [f"{p.path}, {p.place}{notes.get(number, '')}\n{p.text}" for number, p in enumerate(result.passages)]
    return "\n\n".join([*passages, *filter(None, [result.text])])
