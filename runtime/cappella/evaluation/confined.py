"""Confines itself, then runs the Python program that it reads from standard input. A script: see sandbox.py.

`confined.py CPU_S MEMORY_BYTES FILE_BYTES OPEN_FILES PROCESSES [namespaces]`. Standard library only. In `namespaces` the program has
no network, sees no other process, and can write only in an empty folder in memory; what fails there is exit code 125.
"""

import ctypes
import os
import resource
import signal
import struct
import sys
from pathlib import Path

CANNOT = 125
NOBODY = 65534
NEW_NAMESPACES = 0x10000000 | 0x00020000 | 0x40000000 | 0x20000000 | 0x08000000  # user, mounts, network, processes, IPC
MS_REC, MS_PRIVATE, MS_NOSUID, MS_NODEV = 0x4000, 0x40000, 0x2, 0x4
SYS_MOUNT_SETATTR, AT_FDCWD, AT_RECURSIVE, MOUNT_ATTR_RDONLY = 442, -100, 0x8000, 0x1
PR_SET_PDEATHSIG, PR_SET_NO_NEW_PRIVS = 1, 38
# Sockets of services and files of others lie there; through /proc a process could reach the memory of another.
COVERED = ("/proc", "/run", "/var/run", "/var/tmp", "/dev/shm", "/tmp")

libc = ctypes.CDLL(None, use_errno=True)


def main(arguments: list[str]) -> None:
    *limits, last = arguments
    confine = last == "namespaces"
    cpu_s, memory, file_bytes, files, processes = map(int, limits if confine else arguments)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if confine:
        try:
            _enter(file_bytes)
        except OSError as error:
            print(f"no namespace: {error}", file=sys.stderr, flush=True)
            os._exit(CANNOT)
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s + 1))
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    resource.setrlimit(resource.RLIMIT_NPROC, (processes, processes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # With the exec all rights inside the namespaces end, since the user there is not root.
    os.execve(sys.executable, [sys.executable, "-I", "-S", "-B", "-"], {})


def _enter(file_bytes: int) -> None:
    """Returns in a process in new namespaces. Raises OSError if the kernel forbids a step."""
    uid, gid = os.getuid(), os.getgid()
    _call("unshare", NEW_NAMESPACES)
    maps = (("setgroups", "deny"), ("uid_map", f"{NOBODY} {uid} 1"), ("gid_map", f"{NOBODY} {gid} 1"))
    for name, text in maps:
        Path("/proc/self", name).write_text(text)
    if pid := os.fork():
        _exit_like(pid)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    _call("mount", None, b"/", None, MS_REC | MS_PRIVATE, None)
    attributes = struct.pack("QQQQ", MOUNT_ATTR_RDONLY, 0, 0, 0)
    _call("syscall", SYS_MOUNT_SETATTR, AT_FDCWD, b"/", AT_RECURSIVE, attributes, len(attributes))
    covered = [folder for folder in COVERED if os.path.isdir(folder) and not _holds_python(folder)]
    for folder in covered:
        options = f"size={file_bytes},nr_inodes=1000,mode=0777".encode()
        _call("mount", b"tmpfs", folder.encode(), b"tmpfs", MS_NOSUID | MS_NODEV, options)
    os.chdir(covered[-1])


def _exit_like(pid: int) -> None:
    """Wait for the first process of the namespace, and end as it ended."""
    _, status = os.waitpid(pid, 0)
    os._exit(os.waitstatus_to_exitcode(status) & 0xFF)


def _holds_python(folder: str) -> bool:
    used = (sys.executable, os.path.realpath(sys.executable), sys.prefix, sys.base_prefix)
    return any(os.path.realpath(path).startswith(os.path.realpath(folder) + os.sep) for path in used)


def _call(name: str, *arguments: object) -> None:
    """Call a function of the C library. Raises OSError with its name."""
    if getattr(libc, name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


if __name__ == "__main__":
    main(sys.argv[1:])
