"""`cappella install`: weights, config and a virtual environment from a bundle, without a network."""

import os
import platform
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from cappella.bundle import file_copy, verify, wheel_names
from cappella.bundle.manifest import CONFIG_PATH, NAME, PARTIAL, File, Manifest, Target, write_atomically
from cappella.bundle.progress import step
from cappella.errors import ConfigError

RETRY_HINT = "Run it again: finished files are kept"
# Not copied: the wheels, which are in the environment, and the sources they came from.
COPIED = ("weights", "config", "licence", "sbom")
MARK = ".installed"
LOOK_S = 0.5
UNPACKED = 4
"""Rough size of an installed package, in sizes of its wheel."""


def install(bundle: Path, target: Path, key: Path | None = None) -> None:
    """Verify and copy every file, install the wheels, print the next commands. Raises ConfigError."""
    bundle, target = bundle.resolve(), target.resolve()
    with file_copy.disk_errors(target, RETRY_HINT):
        manifest = verify.opened(bundle, key)
        _require_this_machine(bundle, manifest.target)
        verify.check_complete(bundle, manifest)
        _claim(bundle, target, manifest)
        _copy(bundle, target, [file for file in manifest.files if file.role in COPIED])
        _make_environment(bundle, target, manifest.of("wheel"))
    command, config = target / "venv" / "bin" / "cappella", target / CONFIG_PATH
    print(f"installed in {target}; next:")
    for name in ("check", "serve"):
        print(f"  {shlex.quote(str(command))} {name} {shlex.quote(str(config))}")


def this_machine() -> Target:
    """This machine as a bundle's target; `glibc` is the running Python's, empty with another libc."""
    libc, version = platform.libc_ver()
    major, minor = sys.version_info[:2]
    return Target(f"{sys.platform}_{platform.machine()}", f"{major}.{minor}", version if libc == "glibc" else "")


def _require_this_machine(bundle: Path, wanted: Target) -> None:
    own = this_machine()
    if wanted.platform != own.platform:
        problem = f"is for {wanted.platform}, but this machine is {own.platform}"
        raise ConfigError(str(bundle), problem, f"Make a bundle with --platform {own.platform}")
    if wanted.python != own.python:
        problem = f"is for Python {wanted.python}, but this is Python {own.python}"
        raise ConfigError(
            str(bundle), problem, f"Run it with python{wanted.python}, or make a bundle with --python {own.python}"
        )
    if wanted.glibc and wheel_names.numbers(wanted.glibc) > wheel_names.numbers(own.glibc or "0"):
        problem = f"needs glibc {wanted.glibc}, but this machine has {own.glibc or 'none'}"
        raise ConfigError(str(bundle), problem, "Use a newer system")


def _claim(bundle: Path, target: Path, manifest: Manifest) -> None:
    """Claim `target` for this bundle. Raises ConfigError unless it is empty or belongs to the same bundle."""
    mark, text = target / NAME, (bundle / NAME).read_bytes()
    if mark.exists() or not (target.exists() and any(target.iterdir())):
        if mark.exists() and mark.read_bytes() != text:
            raise ConfigError(str(target), "belongs to another bundle", "Use an empty folder")
        remaining = [file for file in manifest.files if not (target / file.path).exists()]
        file_copy.require_space(
            target, sum(file.size_bytes * (UNPACKED if file.role == "wheel" else 1) for file in remaining)
        )
        write_atomically(mark, text)
    else:
        raise ConfigError(str(target), "is not empty", "Use an empty folder")


def _copy(bundle: Path, target: Path, files: Sequence[File]) -> None:
    with step("copying", sum(file.size_bytes for file in files)) as bar:
        for file in files:
            at = target / file.path
            if not at.exists():
                file_copy.join(bundle, file, at, bar)
            elif file_copy.digest(at, bar) != file.sha256:
                raise ConfigError(str(at), "was changed since it was installed", "Move it away and run this again")


def _make_environment(bundle: Path, target: Path, wheels: Sequence[File]) -> None:
    """Create a virtual environment of exactly these wheels, unless it exists."""
    venv = target / "venv"
    wanted = "".join(f"{wheel_names.pin(file.path)} --hash=sha256:{file.sha256}\n" for file in wheels)
    mark = venv / MARK
    if mark.is_file() and mark.read_text() == wanted:
        return
    joined = target / f"wheels{PARTIAL}"
    with step("checking wheels", sum(file.size_bytes for file in wheels)) as bar:
        for file in wheels:
            if file.parts:
                file_copy.join(bundle, file, joined / Path(file.path).name, bar)
            else:
                file_copy.check_hash(bundle, file.stored[0], bar)
    print(f"making {venv} from {len(wheels)} wheels", flush=True)
    _run([sys.executable, "-m", "venv", "--clear", str(venv)], "Install the package venv of this Python (python3-venv)")
    write_atomically(joined / "requirements.txt", wanted.encode())
    _pip_install(venv, [bundle / "wheels", joined], joined / "requirements.txt", len(wheels))
    shutil.rmtree(joined)
    write_atomically(mark, wanted.encode())


def _pip_install(venv: Path, folders: Sequence[Path], requirements: Path, count: int) -> None:
    links = [argument for folder in folders for argument in ("--find-links", str(folder))]
    # pip checks every hash again, so the installed bytes are the checked ones.
    limits = ["--no-index", "--no-deps", "--require-hashes", "--only-binary=:all:", "--no-cache-dir"]
    command = [str(venv / "bin" / "python"), "-I", "-m", "pip", "--isolated", "install", "--quiet"]
    before = _packages(venv)
    with step("installing packages", count, in_bytes=False) as bar:
        arguments = [*command, *limits, *links, "--requirement", str(requirements)]
        _run(arguments, RETRY_HINT, lambda: bar.add(_packages(venv) - before - bar.done))


def _packages(venv: Path) -> int:
    """Number of packages installed so far."""
    return sum(1 for _ in venv.glob("lib/python*/site-packages/*.dist-info"))


def _run(command: Sequence[str], hint: str, look: Callable[[], None] = lambda: None) -> None:
    """Run a command without this machine's pip settings. Raises ConfigError with its last line of output.

    `look` is called at intervals while it runs.
    """
    own = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "PYTHON"))}
    environment = {**own, "PIP_CONFIG_FILE": os.devnull, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    with subprocess.Popen(
        command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        output = ""
        try:
            while process.returncode is None:
                with suppress(subprocess.TimeoutExpired):
                    out, err = process.communicate(timeout=LOOK_S)
                    output = err or out
                look()
        except BaseException:
            process.kill()
            raise
    if process.returncode != 0:
        lines = output.strip().splitlines() or [f"exit code {process.returncode}"]
        raise ConfigError(shlex.join(command[:4]), lines[-1].removeprefix("ERROR: "), hint)
