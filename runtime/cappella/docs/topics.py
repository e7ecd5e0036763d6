"""The pages of the documentation, in the order in which a newcomer needs them."""

from dataclasses import dataclass
from pathlib import Path

NAMES = (
    "start",
    "models",
    "choosing",
    "hardware",
    "config",
    "api",
    "clients",
    "tools",
    "builtin-tools",
    "batch",
    "documents",
    "operations",
    "cluster",
    "air-gap",
    "threat-model",
    "troubleshooting",
    "how-it-works",
    "gpu-runner",
    "evaluation",
    "evidence",
)


@dataclass(frozen=True, slots=True)
class Topic:
    """One page: `name` is that of its file and of its address, `title` its first heading."""

    name: str
    title: str
    text: str


def topics() -> list[Topic]:
    return [_read(name) for name in NAMES]


def _read(name: str) -> Topic:
    text = Path(__file__).with_name(f"{name}.md").read_text(encoding="utf-8")
    return Topic(name, text.partition("\n")[0].removeprefix("# "), text)
