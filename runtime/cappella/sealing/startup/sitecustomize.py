"""Python imports this at its start, before anything else of an engine: see STARTUP in guard.py."""

import os

from cappella.sealing import guard

guard.install(os.environ.get(guard.ALLOWED, "").split(","))
