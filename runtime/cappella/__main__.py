"""`python -m cappella`."""

from cappella.cli.app import app

app()
