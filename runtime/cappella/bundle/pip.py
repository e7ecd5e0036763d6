"""pip as a program of its own, in this Python."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from cappella.errors import ConfigError

# The earliest date of a zip file. With it, two builds of a wheel are equal bytes.
FIRST_DAY_S = "315532800"


def run(arguments: Sequence[str], place: Path, hint: str) -> None:
    """Run pip. Raises ConfigError with its last line and the hint if it fails."""
    environment = {**os.environ, "SOURCE_DATE_EPOCH": FIRST_DAY_S, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    command = [sys.executable, "-m", "pip", *arguments]
    done = subprocess.run(command, env=environment, stdout=sys.stderr, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        output = done.stderr.strip().splitlines() or [f"pip ended with {done.returncode}"]
        raise ConfigError(str(place), output[-1].removeprefix("ERROR: "), hint)
