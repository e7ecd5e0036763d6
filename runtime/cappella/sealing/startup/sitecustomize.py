"""Installs the guard: Python imports this module at its start, before an engine's code (STARTUP in guard.py)."""

import os

from cappella.sealing import guard

guard.install(os.environ.get(guard.ALLOWED, "").split(","))
