"""`python -m cappella`."""

from cappella.cli import app

app()
