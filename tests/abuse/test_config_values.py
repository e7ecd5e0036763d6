"""Arbitrary values in a config: it loads, or one ConfigError names the file. No other error, and no hang."""

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cappella.config import load
from cappella.errors import ConfigError

GOOD: dict[str, Any] = {
    "models": {
        "ann": {
            "weights": "w",
            "max_model_len": 100,
            "kv_cache_bytes": "1MiB",
            "max_num_seqs": 4,
            "tool_parser": "hermes",
            "adapters": {"bee": "b"},
            "engine_args": {"seed": 1},
        },
        "bob": {"weights": "v", "max_model_len": 100},
    },
    "ensembles": {
        "default": {
            "panel": ["ann", {"model": "bob", "temperature": 0.5, "samples": 2}],
            "judge": {"model": "bob", "criteria": "c"},
            "gate": {"mode": "off", "model": "ann", "max_words": 4},
            "presets": {"quick": {"strategy": "select", "analysis": "off"}},
            "deadline_s": 9,
        }
    },
    "placement": {"swap": False, "memory_bytes": "1GiB"},
    "server": {"port": 8000, "keys": "k", "may_reach": ["10.0.0.1"], "max_body_bytes": "1MiB"},
}
SCALARS = st.one_of(
    *(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=12), st.dates(), st.binary(max_size=6)),
    st.sampled_from(
        [10**400, -(10**30), math.nan, math.inf, -math.inf, 1e308, "~", "=", "<<", "\x00", "\ud7ff", "9" * 5000]
    ),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6) | st.integers(), inner, max_size=3),
    max_leaves=6,
)
FRAGMENTS = st.sampled_from(
    [
        *(
            "models:\n",
            "  ann: ",
            "{",
            "}",
            "[",
            "]",
            ": ",
            "- ",
            "\n",
            "&a ",
            "*a",
            "<<: *a\n",
            "!!python/object:os.system ",
            "!!set ",
        ),
        *(
            "!!binary ",
            "!!timestamp ",
            "2024-13-45",
            "0x",
            "1e999",
            ".nan",
            "0o777",
            "1:60:99",
            "%YAML 9.9\n",
            "---\n",
            "...\n",
            "\t",
            "\x00",
        ),
        *(
            "? ",
            "| \n",
            "> \n",
            '"\\ud800"',
            "'",
            '"',
            "#",
            "\ufeff",
            "\u2028",
            "ensembles: {default: {panel: [ann], judge: ann}}\n",
        ),
    ]
)


def places(value: Any, above: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    below = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [each for key, part in below for each in [(*above, key), *places(part, (*above, key))]]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("config") / "config.yaml"


def require_loaded_or_refused(path: Path, text: bytes) -> None:
    path.write_bytes(text)
    error: ConfigError | None = None
    try:
        load.load(path)
    except ConfigError as raised:
        error = raised
    assert error is None or (error.place.startswith(str(path)) and error.problem and error.hint)


def test_the_unmodified_config_loads(path: Path) -> None:
    path.write_text(yaml.safe_dump(GOOD))
    assert load.load(path).ensembles["default"].judge.model == "bob"


@given(st.sampled_from(places(GOOD)), VALUES)
def test_any_value_in_any_place(path: Path, where: tuple[Any, ...], value: Any) -> None:
    config = copy.deepcopy(GOOD)
    *above, key = where
    holder: Any = config
    for step in above:
        holder = holder[step]
    holder[key] = value
    try:
        text = yaml.safe_dump(config, allow_unicode=True)
    except yaml.YAMLError:
        return
    require_loaded_or_refused(path, text.encode("utf-8", "surrogatepass"))


@given(st.sampled_from([(), *places(GOOD)]), st.text(max_size=8) | SCALARS, VALUES)
def test_any_key_in_any_place(path: Path, where: tuple[Any, ...], key: Any, value: Any) -> None:
    config = copy.deepcopy(GOOD)
    holder: Any = config
    for step in where:
        holder = holder[step]
    if isinstance(holder, dict):
        holder[key] = value
    require_loaded_or_refused(path, yaml.safe_dump(config).encode())


@settings(suppress_health_check=list(HealthCheck))
@given(st.lists(FRAGMENTS | st.text(max_size=3), max_size=14).map("".join))
def test_any_text(path: Path, text: str) -> None:
    require_loaded_or_refused(path, text.encode("utf-8", "surrogatepass"))
    require_loaded_or_refused(path, f"{yaml.safe_dump(GOOD)}\n{text}".encode("utf-8", "surrogatepass"))


@given(st.binary(max_size=60))
def test_any_bytes(path: Path, data: bytes) -> None:
    require_loaded_or_refused(path, data)


LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 40)
)


@pytest.mark.parametrize(
    "text",
    [
        LAUGHS,
        LAUGHS + "models: *a39\nensembles: *a39\n",
        "x: " + "[" * 20_000,
        "x: " + "{a: " * 20_000,
        "a: &a {b: *a}",
        "a: &a [*a]\nmodels: *a",
        "models: {? [1] : 2}",
        "models: {? {a: b} : 2}",
        "models: {a: 1, a: 2}",
        "models: {<<: {ann: 1}, <<: {ann: 2}}",
        "models: {<<: 7}",
        "models: !!set {ann}",
        "models: 2024-99-99",
        "models: !!timestamp ''",
        "models: !!bool perhaps",
        "models: !!int x",
        "models: !!float _",
        "? &a [*a]\n: 1",
        "x: " + "9" * 100_000,
        "%TAG ! tag:x,2000:\n---\n!y z",
        "models:\n\tann: 1",
    ],
    ids=lambda text: text[:24],
)
def test_legal_but_unusual_yaml(path: Path, text: str) -> None:
    path.write_text(text)
    with pytest.raises(ConfigError) as refused:
        load.load(path)
    assert refused.value.place.startswith(str(path))
