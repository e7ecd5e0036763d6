"""The sources that an answer cites, below it on a terminal."""

from collections.abc import Iterator

from rich.text import Text

from cappella.cli.client.http import Json
from cappella.cli.client.text import safe


def cited_sources(fusion: Json) -> Iterator[Text]:
    """A line for each source that the answer cites, and one for citations without a source; none where a run found nothing."""
    for source in fusion.get("sources", ()):
        if source["cited"]:
            place = ", ".join(part for part in (source.get("title"), source["path"], source["place"]) if part)
            found_by = f"  found by {', '.join(source['found_by'])} in {source['documents']}"
            yield Text.assemble((f"[{source['handle']}] ", "bold"), safe(place), (safe(found_by), "dim"))
    if removed := fusion.get("removed_citations"):
        yield Text(f"Citations of sources that were not found, cut from the answer: {', '.join(removed)}", "yellow")
