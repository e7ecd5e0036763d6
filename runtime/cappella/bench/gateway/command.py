"""`cappella bench gateway`: measure one gateway process over scripted engines."""

import json
from pathlib import Path

from cappella.bench.gateway import closed_loop, overload
from cappella.bench.gateway.processes import Options


def bench(options: Options, out: Path | None) -> None:
    """Print the figures as tables, and write them as JSON to `out`, if given."""
    if options.overload:
        figures = overload.measure(options)
        overload.show(figures, options)
    else:
        figures = closed_loop.measure(options)
        closed_loop.show(figures, options)
    if out:
        out.write_text(json.dumps(figures) + "\n")
