"""The stack of a config on loopback, without keys, TLS and logs of runs, as `cappella doctor --sealed` runs it.

`python -m cappella.doctor.stack CONFIG PORT LOG_DIR PARENT`, until SIGTERM or the end of the process PARENT.
"""

import signal
import sys
from pathlib import Path

from cappella.config import load
from cappella.engines.process.guardian import end_with_parent
from cappella.errors import CappellaError
from cappella.gateway.serve import serve


def main(config: Path, port: int, log_dir: Path) -> int:
    """Serve like `cappella serve` in all other respects."""
    try:
        loaded = load.load(config)
        alone = {"host": "127.0.0.1", "port": port, "keys": None, "tls": None, "audit": None, "runs": None}
        served = loaded.model_copy(update={"server": loaded.server.model_copy(update=alone)})
        return serve(lambda: served, log_dir)
    except CappellaError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    end_with_parent(int(sys.argv[4]), signal.SIGTERM)
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])))
