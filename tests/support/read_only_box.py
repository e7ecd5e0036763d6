"""Runs a command like the container and the systemd unit do: read-only except for some folders, and not as root.

`python read_only_box.py FOLDER... -- COMMAND...`: only these folders and /dev/shm, which starts empty, are writable.
"""

import ctypes
import os
import sys
from pathlib import Path

CLONE_NEWNS, CLONE_NEWUSER = 0x00020000, 0x10000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_BIND = 0x1, 0x2, 0x4, 0x8, 0x20, 0x1000
MS_REC, MS_PRIVATE = 0x4000, 0x40000
PR_SET_NO_NEW_PRIVS = 38
UID = 10001
"""A user id without a name, as in the container."""
FLAGS = {"ro": MS_RDONLY, "nosuid": MS_NOSUID, "nodev": MS_NODEV, "noexec": MS_NOEXEC}
SHARED_MEMORY = b"/dev/shm"

_libc = ctypes.CDLL(None, use_errno=True)


def enter(writable: list[str]) -> None:
    """Move this process and its children into the box. Raises OSError if the kernel forbids it."""
    uid, gid = os.getuid(), os.getgid()
    _call("unshare", CLONE_NEWUSER | CLONE_NEWNS)
    for name, text in (("setgroups", "deny"), ("uid_map", f"{UID} {uid} 1"), ("gid_map", f"{UID} {gid} 1")):
        Path("/proc/self", name).write_text(text)
    _call("mount", None, b"/", None, MS_REC | MS_PRIVATE, None)
    held = [(folder, os.open(folder, os.O_PATH)) for folder in writable]
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, at, kind, options, *_ = line.encode().decode("unicode_escape").split(" ")
        if kind not in ("proc", "devpts"):
            # Restrictions of the mount outside must be kept inside.
            flags = sum(FLAGS.get(option, 0) for option in options.split(","))
            _call("mount", None, at.encode(), None, MS_REMOUNT | MS_BIND | MS_RDONLY | flags, None)
    _call("mount", b"tmpfs", SHARED_MEMORY, b"tmpfs", MS_NOSUID | MS_NODEV, b"mode=1777")
    for folder, fd in held:
        _call("mount", f"/proc/self/fd/{fd}".encode(), folder.encode(), None, MS_BIND, None)
        _call("mount", None, folder.encode(), None, MS_REMOUNT | MS_BIND | MS_NOSUID | MS_NODEV, None)
    _call("prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def _call(name: str, *arguments: object) -> None:
    if getattr(_libc, name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name} {arguments}: {os.strerror(number)}")


if __name__ == "__main__":
    split = sys.argv.index("--")
    enter(sys.argv[1:split])
    # Capabilities in the new namespace end with the exec, since nobody is root there.
    os.execvp(sys.argv[split + 1], sys.argv[split + 1 :])
