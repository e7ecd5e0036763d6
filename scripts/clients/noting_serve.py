"""The command line of Cappella, whose server notes each request in the file that CLIENT_NOTES names."""

import os
from pathlib import Path
from typing import Any

from cappella.cli.app import app
from cappella.gateway import serve
from clients.noting import Noting

_create_app = serve.create_app


def _noting_app(*arguments: Any) -> Any:
    made = _create_app(*arguments)
    made.add_middleware(Noting, file=Path(os.environ["CLIENT_NOTES"]))
    return made


serve.create_app = _noting_app
app()
