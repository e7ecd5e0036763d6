"""Confines itself, then runs the Python program that it reads from standard input. A script: see sandbox.py.

`confined.py CPU_S MEMORY_BYTES FILE_BYTES OPEN_FILES PROCESSES ALONE [namespaces]`. Standard library only. In `namespaces` the
program has no network and no sockets of other programs, sees no other process and no files but those that Python needs, and can write only in
folders in memory; what fails there is exit code 125. The current folder is one that nobody else uses.
"""

import ctypes
import os
import resource
import signal
import struct
import sys
from collections.abc import Iterable
from pathlib import Path

CANNOT = 125
NOBODY = 65534
NEW_NAMESPACES = 0x10000000 | 0x00020000 | 0x40000000 | 0x20000000 | 0x08000000  # user, mounts, network, processes, IPC
MS_BIND, MS_REC, MS_PRIVATE, MS_NOSUID, MS_NODEV = 0x1000, 0x4000, 0x40000, 0x2, 0x4
MNT_DETACH = 0x2
SYS_MOUNT_SETATTR, AT_FDCWD, AT_RECURSIVE, MOUNT_ATTR_RDONLY = 442, -100, 0x8000, 0x1
PR_SET_PDEATHSIG, PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS = 1, 22, 38
SECCOMP_MODE_FILTER, KILL, REFUSE, ALLOW = 2, 0x80000000, 0x00050000 | 13, 0x7FFF0000
LOAD, AND, IS, AT_LEAST, RETURN = 0x20, 0x54, 0x15, 0x35, 0x06
CALL, ARCHITECTURE, FIRST_ARGUMENT, SECOND_ARGUMENT = 0, 4, 16, 24  # where the filter finds them
AF_INET, AF_INET6, SOCK_DGRAM, SOCK_RAW = 2, 10, 2, 3
IO_URING_SETUP, X32 = 425, 0x40000000
ARCHITECTURES = {"x86_64": (0xC000003E, 41, 53), "aarch64": (0xC00000B7, 198, 199)}
"""By machine: its number, and those of `socket` and `socketpair`."""
BEYOND_ITSELF = {
    "x86_64": (56, 57, 58, 101, 272, 308, 248, 249, 250, 298, 321, 323),
    "aarch64": (220, 117, 97, 268, 217, 218, 219, 241, 280, 282),
}
"""By machine: the numbers of `clone`, then of `fork` and `vfork` where there are such, of `ptrace`, `unshare` and `setns`, of the
three for the kernel's keys, and of `perf_event_open`, `bpf` and `userfaultfd`."""
CLONE3, CLONE_THREAD, HAS, NOT_THERE = 435, 0x10000, 0x45, 0x00050000 | 38
DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom")
OF_TIME_AND_LIBRARIES = ("/usr/share/zoneinfo", "/etc/localtime", "/etc/ld.so.cache")
OF_PREFIX = ("bin", "lib", "lib32", "lib64")
WORK = "/dev/shm"
WRITABLE = (WORK, "/tmp", "/var/tmp")
OLD_ROOT = "/old"
# In a virtual environment the interpreter that it is of: the program needs nothing of the environment.
PYTHON = os.path.realpath(getattr(sys, "_base_executable", sys.executable))

libc = ctypes.CDLL(None, use_errno=True)


def main(arguments: list[str]) -> None:
    *limits, last = arguments
    confine = last == "namespaces"
    cpu_s, memory, file_bytes, files, processes, alone = map(int, limits if confine else arguments)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if confine:
        try:
            _enter(file_bytes)
            _refuse_sockets(os.uname().machine)
            if alone:
                _refuse_processes(os.uname().machine)
        except OSError as error:
            print(f"no namespace: {error}", file=sys.stderr, flush=True)
            os._exit(CANNOT)
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s + 1))
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    resource.setrlimit(resource.RLIMIT_NPROC, (processes, processes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # With the exec all rights inside the namespaces end, since the user there is not root.
    os.execve(PYTHON, [PYTHON, "-I", "-S", "-B", "-"], {})


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
    _make_read_only(AT_RECURSIVE)
    _enter_root(os.getcwd(), file_bytes)


def _enter_root(folder: str, file_bytes: int) -> None:
    """Make an empty root in memory, at this folder, with what Python needs. Nothing else can be named afterwards."""
    prefixes = ("/", "/usr", "/usr/local", sys.base_prefix, sys.base_exec_prefix)
    needed = [os.path.join(prefix, name) for prefix in prefixes for name in OF_PREFIX]
    needed += [*DEVICES, *OF_TIME_AND_LIBRARIES, PYTHON, os.path.dirname(os.__file__)]
    real = {path: os.path.realpath(path) for path in needed if os.path.exists(path)}
    _mount_memory(folder, file_bytes)
    os.mkdir(folder + OLD_ROOT)
    _call("pivot_root", os.fsencode(folder), os.fsencode(folder + OLD_ROOT))
    os.chdir("/")
    for path in WRITABLE:
        os.makedirs(path)
        _mount_memory(path, file_bytes)
    for path in _outermost(real.values()):
        _bring(path)
    for path, target in real.items():
        if not os.path.lexists(path):
            os.makedirs(os.path.dirname(path), exist_ok=True)
            os.symlink(target, path)
    # Empty: through it a process could reach the memory of another.
    os.mkdir("/proc")
    _call("umount2", os.fsencode(OLD_ROOT), MNT_DETACH)
    os.rmdir(OLD_ROOT)
    _make_read_only(0)
    os.chdir(WORK)


def _mount_memory(folder: str, file_bytes: int) -> None:
    options = f"size={file_bytes},nr_inodes=1000,mode=0777".encode()
    _call("mount", b"tmpfs", os.fsencode(folder), b"tmpfs", MS_NOSUID | MS_NODEV, options)


def _make_read_only(flags: int) -> None:
    """The mount of the root, and with AT_RECURSIVE all below it."""
    attributes = struct.pack("QQQQ", MOUNT_ATTR_RDONLY, 0, 0, 0)
    _call("syscall", SYS_MOUNT_SETATTR, AT_FDCWD, b"/", flags, attributes, len(attributes))


def _bring(path: str) -> None:
    """Show a file or folder of the old root at its place in this one."""
    if os.path.isdir(OLD_ROOT + path):
        os.makedirs(path, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        Path(path).touch()
    _call("mount", os.fsencode(OLD_ROOT + path), os.fsencode(path), None, MS_BIND | MS_REC, None)


def _outermost(paths: Iterable[str]) -> list[str]:
    """Those that are not inside another; never the root."""
    all_paths = sorted({*paths} - {"/"})
    return [path for path in all_paths if not any(path.startswith(other + os.sep) for other in all_paths)]


def _refuse_sockets(machine: str) -> None:
    """Leave only sockets of the empty network, and pairs that stay pairs. Raises OSError on a machine that is not known.

    A name in a folder that can only be read is enough to reach a Unix socket, and a virtual machine's host needs no name.
    """
    if machine not in ARCHITECTURES:
        raise OSError(f"no rules for sockets on {machine}")
    _filter(_rules(*ARCHITECTURES[machine]))


def _refuse_processes(machine: str) -> None:
    """Leave only threads: the program's limits of memory and CPU are then those of all that it does.

    Nor is there a way to namespaces of its own, in which it had rights, to the user's keys, or to parts of the kernel that no
    program needs.
    """
    _filter(_rules_of_processes(BEYOND_ITSELF[machine]))


def _filter(rules: list[tuple[int, int, int, int]]) -> None:
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *rule) for rule in rules))
    program = ctypes.create_string_buffer(struct.pack("HP", len(rules), ctypes.addressof(code)))
    _call("prctl", PR_SET_SECCOMP, ctypes.c_ulong(SECCOMP_MODE_FILTER), program, ctypes.c_ulong(0), ctypes.c_ulong(0))


def _rules(architecture: int, socket: int, socketpair: int) -> list[tuple[int, int, int, int]]:
    """Operation, how many rules to skip if it is so and if not, and the value. Through io_uring a filter sees no calls."""
    return [
        (LOAD, 0, 0, ARCHITECTURE),
        (IS, 0, 15, architecture),
        (LOAD, 0, 0, CALL),
        (AT_LEAST, 13, 0, X32),
        (IS, 3, 0, socket),
        (IS, 5, 0, socketpair),
        (IS, 9, 0, IO_URING_SETUP),
        (RETURN, 0, 0, ALLOW),
        (LOAD, 0, 0, FIRST_ARGUMENT),
        (IS, 5, 0, AF_INET),
        (IS, 4, 5, AF_INET6),
        (LOAD, 0, 0, SECOND_ARGUMENT),
        (AND, 0, 0, 0xF),
        (IS, 2, 0, SOCK_DGRAM),
        (IS, 1, 0, SOCK_RAW),
        (RETURN, 0, 0, ALLOW),
        (RETURN, 0, 0, REFUSE),
        (RETURN, 0, 0, KILL),
    ]


def _rules_of_processes(calls: tuple[int, ...]) -> list[tuple[int, int, int, int]]:
    """`clone` alone may make threads. `clone3`, whose flags a filter cannot see, is not there: libraries then use `clone`."""
    clone, *others = calls
    refused = [(IS, len(others) - number + 3, 0, each) for number, each in enumerate(others)]
    return [
        (LOAD, 0, 0, CALL),
        *refused,
        (IS, 2, 0, CLONE3),
        (IS, 3, 0, clone),
        (RETURN, 0, 0, ALLOW),
        (RETURN, 0, 0, NOT_THERE),
        (RETURN, 0, 0, REFUSE),
        (LOAD, 0, 0, FIRST_ARGUMENT),
        (HAS, 0, 1, CLONE_THREAD),
        (RETURN, 0, 0, ALLOW),
        (RETURN, 0, 0, REFUSE),
    ]


def _exit_like(pid: int) -> None:
    """Wait for the first process of the namespace, and end as it ended."""
    _, status = os.waitpid(pid, 0)
    os._exit(os.waitstatus_to_exitcode(status) & 0xFF)


def _call(name: str, *arguments: object) -> None:
    """Call a function of the C library. Raises OSError with its name."""
    if getattr(libc, name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


if __name__ == "__main__":
    main(sys.argv[1:])
