"""Writes an audit log whose file size is limited, as on a full disk, until the limit is lifted.

`python full_disk.py FILE LIMIT_BYTES LINES`; a separate process, since the limit applies to all its files.
"""

import resource
import sys
import time
from pathlib import Path

from cappella.config import Audit
from cappella.errors import AuditUnavailable
from cappella.telemetry.audit import log as audit_log
from cappella.telemetry.audit.log import AuditLog


def main(path: Path, limit_bytes: int, lines: int) -> None:
    audit_log.RETRY_S = 0.01
    audit_log.MAX_QUEUED_LINES = 20
    log = AuditLog(Audit(file=path, required=True))
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, resource.RLIM_INFINITY))
    log.start()
    log.write({"kind": "call", "text": "x" * 2 * limit_bytes})
    while available(log):
        time.sleep(0.005)
    for number in range(lines):
        log.write({"kind": "call", "number": number})
    assert path.stat().st_size == limit_bytes
    if "--stay" not in sys.argv:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        while not available(log):
            time.sleep(0.005)
        log.write({"kind": "call", "number": "after"})
    log.close()


def available(log: AuditLog) -> bool:
    try:
        log.require_available()
    except AuditUnavailable:
        return False
    return True


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
