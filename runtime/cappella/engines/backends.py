"""Factory of engines: the client for each kind of server, and how to start the one kind that Cappella starts, vLLM."""

import importlib.util
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from pathlib import Path

from cappella.config import Config, Model, Ray, RemoteModel
from cappella.engines.address import Address
from cappella.engines.base import HoldAwake, KeepAwake, SingleServer
from cappella.engines.circuit_breaker import CircuitBreaker
from cappella.engines.context_size import LONGEST_TOKEN_CHARS, ContextSize
from cappella.engines.http_engine import HttpEngine
from cappella.engines.launcher import Launcher
from cappella.engines.process.process import ForkServer
from cappella.engines.ray import launcher as ray_launcher
from cappella.engines.ray import nodes
from cappella.engines.ray.launcher import MoveTo, RayLaunchers
from cappella.engines.ray.nodes import Nodes
from cappella.engines.remote import OpenAIEngine
from cappella.engines.sanitize import WELL_KNOWN_SPECIAL_TOKENS, Sanitizer
from cappella.engines.status import EngineStatus
from cappella.engines.vllm import key_check, own_parser, server_args, startup_stages
from cappella.engines.vllm.client import VllmEngine
from cappella.engines.vllm.pooling import PoolingEngine
from cappella.errors import ConfigError
from cappella.placement import machine
from cappella.placement.planner import Plan
from cappella.types import Capabilities

SERVER_MODULE = "cappella.engines.vllm.server_main"
"""The module whose `main()` runs the server."""
STARTUP_STAGES = startup_stages.STAGES
MAX_SOCKET_NAME_BYTES = server_args.MAX_SOCKET_NAME_BYTES

server_arguments = server_args.arguments
server_environment = server_args.environment
listening = server_args.listening
KEY = key_check.KEY
NOWHERE = ray_launcher.NOWHERE


def require_installed() -> None:
    """Raises ConfigError if the server that Cappella starts is not installed."""
    if importlib.util.find_spec("vllm") is None:
        raise ConfigError("this Python", "vLLM is not installed", "Install the extra cpu or gpu, or use scripts/run")


def refused_settings(models: Mapping[str, Model]) -> list[ConfigError]:
    """What the server, where it is installed, would refuse of the settings that are its own. Raises ConfigError."""
    return own_parser.mistakes(models) if importlib.util.find_spec("vllm") else []


def launcher(env: Mapping[str, str], log: Path) -> Launcher:
    """What starts servers with this environment; it prints to `log`."""
    return ForkServer(SERVER_MODULE, STARTUP_STAGES, env, log)


def cluster(config: Config) -> Nodes:
    """The nodes of the config's Ray cluster. Raises ConfigError."""
    return nodes.read(config.placement.ray or Ray(), config.server)


def nodes_for(config: Config) -> Nodes:
    """Where the local models of a config run: the nodes of its Ray cluster, or this machine. Raises ConfigError."""
    return cluster(config) if config.placement.ray and config.local else Nodes(machine.own(), {})


def cluster_launchers(config: Config, plan: Plan) -> RayLaunchers:
    """What starts servers on the nodes of a plan over the config's Ray cluster."""
    return RayLaunchers(config, plan, STARTUP_STAGES)


def movers(engines: Iterable[SingleServer]) -> list[MoveTo]:
    """What moves the clients of one server to where it listens now."""
    return [engine.move_to for engine in engines if isinstance(engine, HttpEngine)]


def local_engines(
    socket: Path | Address,
    names: Iterable[str],
    status: EngineStatus,
    sanitizer: Sanitizer,
    capabilities: Capabilities,
    hold_awake: HoldAwake | None,
    context: ContextSize | None = None,
    keep_awake: KeepAwake = nullcontext,
) -> dict[str, SingleServer]:
    """The clients of a server that Cappella starts, on a socket or a node: one for the model and one for each adapter, by name."""
    circuit_breaker = CircuitBreaker()
    kind = VllmEngine if capabilities.writes else PoolingEngine
    return {
        name: kind(socket, status, sanitizer, capabilities, hold_awake, name, circuit_breaker, context, keep_awake)
        for name in names
    }


def remote_engines(name: str, model: RemoteModel) -> dict[str, VllmEngine | OpenAIEngine]:
    """The clients of a model's attached servers, by the name of each. Raises ConfigError for an API key that cannot be read."""
    servers = zip(model.servers(name), model.urls, strict=True)
    return {server: _remote_engine(name, model, server, url) for server, url in servers}


def _remote_engine(name: str, model: RemoteModel, server: str, url: str) -> VllmEngine | OpenAIEngine:
    of_vllm = VllmEngine if model.capabilities.writes else PoolingEngine
    kind = of_vllm if model.api == "vllm" else OpenAIEngine
    address = Address(url, key=_read_api_key(name, model))
    sanitizer = Sanitizer(WELL_KNOWN_SPECIAL_TOKENS)
    context = ContextSize(model.context_tokens, LONGEST_TOKEN_CHARS)
    return kind(address, EngineStatus(server), sanitizer, model.capabilities, name=model.model or name, context=context)


def _read_api_key(name: str, model: RemoteModel) -> str | None:
    """The server's API key, None if it needs none. Raises ConfigError."""
    if model.key_file is None:
        return None
    place, hint = f"models.{name}.key_file: {model.key_file}", "Put the server's API key into it, on one line"
    try:
        key = model.key_file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(place, f"cannot be read ({getattr(error, 'strerror', None) or 'no text'})", hint) from error
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise ConfigError(place, "holds no key", hint)
    return key
