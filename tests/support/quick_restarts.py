"""`cappella`, whose engines are restarted after pauses of a few seconds at most."""

from functools import partial

from cappella.cli.app import app
from cappella.engines.spec import Backoff
from cappella.gateway import serve

if __name__ == "__main__":
    serve.Supervisor = partial(serve.Supervisor, backoff=Backoff((0.5, 2.0, 2.0, 4.0)))  # type: ignore[assignment,attr-defined]
    app()
