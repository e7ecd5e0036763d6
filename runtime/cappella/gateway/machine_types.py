"""Types of the JSON replies about this machine: `/ready`, `/api/machine` and actions on engines; see reply_types.py."""

from typing import Literal, NotRequired

# pydantic supports that of the standard library only from Python 3.12 on.
from typing_extensions import TypedDict

from cappella.engines.status import Action, EngineState
from cappella.telemetry.recent_calls import RecentCall
from cappella.telemetry.trace_types import Count
from cappella.vocabulary import Task


class LastFailure(TypedDict):
    """Why an engine ended; `time` is in seconds since 1970."""

    time: float
    reason: str
    log: str | None


class EngineNow(TypedDict):
    """What a key may see of an engine that it may call; `progress` of its start runs from 0 to 1.

    For a key without the scope `admin`, `stage` repeats the state: its words may come from a log.
    """

    state: EngineState
    stage: str
    progress: float
    remaining_s: float | None


class EngineStatusNow(EngineNow):
    """The whole status of an engine. `reason` is why it does not run; `last_failure` stays after a recovery.

    `wakes` counts the calls that woke it after `sleep_after_s`; the last wake took `last_wake_s`.
    """

    restarts: Count
    restarts_asked: Count
    wakes: Count
    last_wake_s: float | None
    reason: str | None
    last_failure: LastFailure | None


class EngineReadiness(EngineStatusNow):
    model: str


class GpuNow(TypedDict):
    """One GPU as the driver reports it; `linked` are the indices of those with a fast link to it."""

    index: Count
    uuid: str
    name: str
    total_bytes: Count
    free_bytes: Count
    busy_percent: Count | None
    numa_node: int | None
    linked: list[Count]


class Readiness(TypedDict):
    """`ready` if every ensemble can answer. A key without the scope `admin` sees what it may call, and no GPUs."""

    ready: bool
    ensembles: dict[str, bool]
    engines: dict[str, EngineReadiness] | dict[str, EngineNow]
    gpus: list[GpuNow]


class EnsembleNow(TypedDict):
    """`judge` is null where no run asks one."""

    answers: bool
    panel: list[str]
    judge: str | None
    presets: list[str]
    waiting: Count
    in_flight: Count


class PlannedBytes(TypedDict):
    """Planned memory of an engine, on each of its GPUs; of one with replicas, that of all of them."""

    weight_bytes: Count
    kv_cache_bytes: Count
    overhead_bytes: Count


class EnginePlace(TypedDict):
    """Where an engine is placed: `turn` is its swap group, null if it never gives way to another; a remote model has no plan."""

    gpus: list[Count]
    turn: Count | None
    planned: PlannedBytes | None


class EngineFigures(TypedDict):
    """The engine's own figures; null where unknown. `kv_usage` is a share, from 0 to 1."""

    kv_usage: float | None
    running: Count | None
    waiting: Count | None
    tokens_per_s: float | None


class ReplicaNow(TypedDict):
    """One server of a model that has several. `in_flight` counts the calls from here, `max_num_seqs` is what it runs at once.

    `failed` counts calls that broke with it. `actions` are possible at `/api/engines/NAME/ACTION`.
    """

    name: str
    state: EngineState
    stage: str
    progress: float
    remaining_s: float | None
    reason: str | None
    url: str | None
    in_flight: Count
    max_num_seqs: Count
    failed: Count
    actions: list[Action]


class EngineDetails(EngineStatusNow, EnginePlace, EngineFigures):
    """What an operator sees of an engine; `actions` are those possible now. One on a single server has no `replicas`."""

    task: Task
    adapters: list[str]
    url: str | None
    used_bytes: Count | None
    actions: list[Action]
    replicas: list[ReplicaNow]


class MemoryNow(TypedDict):
    """One GPU, or the machine's memory; `engines` are the planned bytes on it by engine."""

    device: str
    total_bytes: Count
    free_bytes: Count
    busy_percent: Count | None
    engines: dict[str, Count]


class Queue(TypedDict):
    waiting: dict[str, Count]
    in_flight: dict[str, Count]
    max_waiting: Count


class ToolServerNow(TypedDict):
    """A tool server: `problem` says why it has no tools now; `notes` are what an operator should know of it."""

    state: Literal["ready", "starting", "down"]
    problem: str | None
    tools: list[str]
    calls: Count
    failed: Count
    confined_by: str
    notes: list[str]


class Machine(TypedDict):
    """Engines, ensembles, memory, queue and tool servers; for keys that do not operate it, only the first two, in short."""

    time: float
    version: str
    runs_kept: bool
    takes_batches: bool
    ensembles: dict[str, EnsembleNow]
    engines: dict[str, EngineDetails] | dict[str, EngineNow]
    memory: NotRequired[list[MemoryNow]]
    queue: NotRequired[Queue]
    tool_servers: NotRequired[dict[str, ToolServerNow]]


class EngineFacts(TypedDict):
    """What an engine serves: local weights and how, or the `url` of a server that runs elsewhere, of several with commas between.

    `revision` and `hub_id` are known of weights from the hub, and `digest` where there is an audit log.
    """

    weights: NotRequired[str]
    hub_id: NotRequired[str | None]
    revision: NotRequired[str | None]
    digest: NotRequired[str | None]
    dtype: NotRequired[str]
    kv_cache_dtype: NotRequired[str]
    max_model_len: Count
    max_num_seqs: Count
    url: NotRequired[str]


class EngineLog(TypedDict):
    file: str
    lines: list[str]


class EngineRecord(TypedDict):
    """One engine's facts, its failures, the newest first, and the end of its log."""

    engine: str
    facts: EngineFacts
    failures: list[LastFailure]
    log: EngineLog | None


class Calls(TypedDict):
    object: Literal["list"]
    data: list[RecentCall]


class Engine(TypedDict):
    engine: str
    state: EngineState
    stage: str
    actions: list[Action]
