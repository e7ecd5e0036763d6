"""Configs: every shipped file loads, and every mistake is reported with its place and a hint."""

import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from cappella.config import Config, Ensemble, Model
from cappella.config.load import load
from cappella.errors import ConfigError
from support.config_file import write_config

ROOT = Path(__file__).parents[2]
GOOD = """\
models:
  ann: {weights: ./w/ann, max_model_len: 64, kv_cache_bytes: 1MiB}
  bob: {weights: /abs/bob, max_model_len: 64, kv_cache_bytes: 1MiB}
ensembles:
  default:
    panel: [ann, {model: bob, temperature: 0.5}, ann]
    judge: bob
"""


@pytest.mark.parametrize("mode", ["off", "before"])
def test_a_mode_needs_no_quotes_also_where_older_yaml_reads_a_boolean(tmp_path: Path, mode: str) -> None:
    text = GOOD.replace("judge: bob", f"judge: bob\n    analysis: {mode}\n    debias: yes\n    early_prefill: false")
    ensemble = load(write_config(tmp_path, text)).ensembles["default"]
    assert (ensemble.analysis, ensemble.debias, ensemble.early_prefill) == (mode, True, False)


def test_paths_are_relative_to_the_file_and_seats_get_names(tmp_path: Path) -> None:
    config = load(write_config(tmp_path, GOOD))
    assert config.local["ann"].weights == tmp_path / "w" / "ann"
    assert config.local["bob"].weights == Path("/abs/bob")
    seats = config.ensembles["default"].seats
    assert [seat.name for seat in seats] == ["ann", "bob", "ann#2"]
    assert seats[1].sampling.temperature == 0.5
    assert config.ensembles["default"].quorum_of(3) == 2
    assert config.ensembles["default"].judge.sampling.temperature == 0.0


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("max_model_len: 64", "max_model_length: 64", r"c.yaml:2: models.ann.max_model_length: unknown key. Did you"),
        ("temperature:", "temprature:", r"c.yaml:6: ensembles.default.panel.1.temprature: .* mean temperature\?"),
        ("judge: bob", "judges: bob", r"c.yaml:7: ensembles.default.judges: unknown key. Did you mean judge\?"),
        (
            "judge: bob",
            "judge: rob",
            r"c.yaml:7: ensembles.default.judge: there is no model 'rob'.*Use one of ann, bob",
        ),
        ("judge: bob", "judge: bob\n    quorum: 4", r"c.yaml:5: ensembles.default: quorum 4 is larger than"),
        ("judge: bob", "judge: bob\n    analysis: x", r"c.yaml:8: ensembles.default.analysis: .*'before'"),
        ("judge: bob", "judge: bob\n    judge: ann", r"c.yaml:8: judge: duplicate key"),
        (
            "judge: bob",
            "judge: bob\n    tools: true",
            r"c.yaml:6: .*panel.0: the ensemble has tools: true, and ann has no tool_p",
        ),
        (
            "temperature: 0.5",
            "temperature: 0, samples: 3",
            r"c.yaml:6: .*panel.1: 3 samples at temperature 0 would be identical",
        ),
        (
            "models:",
            "server: {tracing: {endpoint: 'http://10.0.0.7:4318'}}\nmodels:",
            r"c.yaml:1: server.tracing.endpoint: 10.0.0.7 is neither on this machine.*to server.may_reach",
        ),
        (
            "models:",
            "server: {tracing: {endpoint: 'http://otel.example:4318'}, may_reach: [10.0.0.7]}\nmodels:",
            r"c.yaml:1: server.tracing.endpoint: otel.example is neither on this machine.*IP address",
        ),
        (
            "models:",
            "server: {tracing: {endpoint: here}}\nmodels:",
            r"c.yaml:1: server.tracing.endpoint: 'here' is not",
        ),
        ("models:", "server: {tracing: {endpoint: 'unix:otel'}}\nmodels:", r"endpoint: 'unix:otel' is not the address"),
        (
            "models:",
            "server: {tracing: {endpoint: 'http://[::1'}}\nmodels:",
            r"endpoint: 'http://\[::1' is not the address",
        ),
        (
            "models:",
            "server: {tracing: {endpoint: 'ftp://127.0.0.1:1'}}\nmodels:",
            r"endpoint: 'ftp:.* is not the address",
        ),
        (
            "models:",
            "server: {tracing: {endpont: x}}\nmodels:",
            r"server.tracing.endpont: unknown key. Did you mean endpoint",
        ),
        ("models:", "server: {log_format: xml}\nmodels:", r"c.yaml:1: server.log_format: .*'text' or 'json'"),
        ("judge: bob", "judge: bob\n    gate: {mode: rules, model: zed}", r"c.yaml:8: .*gate: there is no model 'zed'"),
        ("judge: bob", "judge: bob\n    strategy: best", r"c.yaml:8: ensembles.default.strategy: .*'synthesize'"),
        ("judge: bob", "judge: bob\n    presets: {x: {panel: [zed]}}", r"presets.x.panel.0: there is no model 'zed'"),
        (
            "judge: bob",
            "judge: bob\n    presets: {x: {layer: 2}}",
            r"presets.x.layer: unknown key. Did you mean layers\?",
        ),
        (
            "judge: bob",
            "judge: bob\n    presets: {x: {panel: [ann], quorum: 2}}",
            r"quorum 2 is larger than the panel of 1",
        ),
        ("panel: [ann,", "panel: [zed,", r"c.yaml:6: ensembles.default.panel.0: there is no model 'zed'"),
        ("1MiB}\n  bob", "1MiB, engine_args: {trust-remote-code: true}}\n  bob", r"c.yaml:2: .*trust-remote-code"),
        (
            "1MiB}\n  bob",
            "1MiB, prompt_lookup_tokens: 4, engine_args: {speculative-config: {}}}\n  bob",
            r"c.yaml:2: .*prompt_lookup_tokens and speculative_config exclude each other",
        ),
        ("kv_cache_bytes: 1MiB}\n  bob", "kv_cache_bytes: much}\n  bob", r"c.yaml:2: models.ann.kv_cache_bytes"),
        (
            "models:",
            "server: {host: 0.0.0.0}\nmodels:",
            r"c.yaml:1: server: host '0.0.0.0' is not loopback, and keys and tls must be set",
        ),
        (
            "models:",
            "server: {audit: {fil: a}}\nmodels:",
            r"c.yaml:1: server.audit.fil: unknown key. Did you mean file\?",
        ),
        ("models:", "server: {audit: {}}\nmodels:", r"c.yaml:1: server.audit.file: this key is missing"),
        (
            "models:",
            "server:\n  audit:\n    file: a\n    redact:\n    - ok\n    - 'a(b'\nmodels:",
            r"c.yaml:6: server.audit.redact.1: 'a\(b' is not a regular expression \(missing \)",
        ),
        (
            "models:",
            "server: {audit: {file: a, redact: ['x*']}}\nmodels:",
            r"redact.0: 'x\*' matches the empty text",
        ),
        ("models:", "server: {runs: {file: a, retention_days: 0}}\nmodels:", r"c.yaml:1: server.runs.retention_days: "),
        (
            "models:",
            "server: {batch: {folder: a, when: 22-6}}\nmodels:",
            r"server.batch.when: '22-6' is not a part of the day: write it as 22:00-06:00",
        ),
        ("models:", "server: {batch: {folder: a, when: '22:00-22:00'}}\nmodels:", r"is not a part of the day"),
        ("models:", "server: {batch: {folder: a, share: 0}}\nmodels:", r"c.yaml:1: server.batch.share: "),
        (
            "models:",
            "server: {max_waiting_per_key: 4}\nmodels:",
            r"c.yaml:1: server: max_waiting_per_key has no effect without keys",
        ),
        (
            "models:",
            "server: {keys: k, max_waiting: 8, max_waiting_per_key: 9}\nmodels:",
            r"c.yaml:1: server: max_waiting_per_key is larger than max_waiting, which is 8",
        ),
        (
            "models:",
            "server: {cors_origins: ['*']}\nmodels:",
            r"c.yaml:1: server.cors_origins.0: .*'\*' is not an origin",
        ),
        ("models:", "server: {cors_origins: ['https://a.lan/']}\nmodels:", r"cors_origins.0: .*/' is not an origin"),
        (
            "models:",
            "server: {cors_origins: ['https://a.lan:443']}\nmodels:",
            r"cors_origins.0: .*443' is not an origin",
        ),
        ("models:", "server: {cors_origins: ['null']}\nmodels:", r"cors_origins.0: .*'null' is not an origin"),
        (
            "models:",
            "server: {allowed_hosts: ['a.lan:80']}\nmodels:",
            r"allowed_hosts.0: .*'a.lan:80' is not a host name",
        ),
        ("models:", "modles:", r"c.yaml:1: modles: unknown key. Did you mean models\?"),
        ("[ann,", "[ann", r"c.yaml:\d+: is not valid YAML"),
        (GOOD, "", r"c.yaml:1: the file: .*Change the value"),
        (GOOD, "- 1", r"c.yaml:1: the file"),
    ],
)
def test_a_mistake_is_named_with_its_place_and_a_hint(tmp_path: Path, old: str, new: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as raised:
        load(write_config(tmp_path, GOOD.replace(old, new, 1)))
    assert "\n" not in str(raised.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere.yaml: cannot be read"):
        load(tmp_path / "nowhere.yaml")


@pytest.mark.parametrize("path", sorted((ROOT / "model_configs").glob("*.yaml")), ids=lambda path: path.name)
def test_every_shipped_config_loads(path: Path) -> None:
    assert load(path).ensembles


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("localhost", True),
        ("::1", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("example.com", False),
        ("localhost.example.com", False),
    ],
)
def test_only_loopback_hosts_are_allowed(tmp_path: Path, host: str, allowed: bool) -> None:
    path = write_config(tmp_path, f"server: {{host: '{host}'}}\n{GOOD}")
    if allowed:
        assert load(path).server.host == host
    else:
        with pytest.raises(ConfigError, match=r"c\.yaml:1: server"):
            load(path)


@pytest.mark.parametrize("size", [9, 0])
def test_a_panel_has_one_to_eight_members(tmp_path: Path, size: int) -> None:
    with pytest.raises(ConfigError, match=r"c\.yaml:6: ensembles\.default\.panel"):
        load(write_config(tmp_path, GOOD.replace("[ann, {model: bob, temperature: 0.5}, ann]", str(["ann"] * size))))


@given(
    st.text(alphabet="abcdefghijklmnopqrstuvwxyz_", min_size=1, max_size=12).filter(
        lambda key: key not in {*Config.model_fields, *Ensemble.model_fields, *Model.model_fields}
    )
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_an_unknown_key_is_named_with_its_line_wherever_it_stands(tmp_path: Path, key: str) -> None:
    for old, line, where in (("models:", 1, key), ("panel:", 6, f"ensembles.default.{key}")):
        text = GOOD.replace(old, f"'{key}': 1\n{'' if line == 1 else '    '}{old}", 1)
        with pytest.raises(ConfigError, match=rf"c\.yaml:{line}: {re.escape(where)}: unknown key\. "):
            load(write_config(tmp_path, text))


@given(st.text(max_size=60) | st.lists(st.sampled_from("abc:-[]{}&*!#|>'\n \t,?%@"), max_size=30).map("".join))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_no_text_makes_anything_but_a_config_error(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError) as raised:
        load(write_config(tmp_path, text))
    assert str(tmp_path / "c.yaml") in str(raised.value)


def test_an_invalid_date_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"c\.yaml"):
        load(write_config(tmp_path, GOOD.replace("./w/ann", "2020-13-45")))


def test_an_alias_to_itself_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"c\.yaml"):
        load(write_config(tmp_path, f"{GOOD}x: &x [*x]\n"))


def test_a_folder_in_the_configs_place_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load(tmp_path)


def test_a_loaded_config_cannot_be_changed(tmp_path: Path) -> None:
    config = load(write_config(tmp_path, GOOD))
    with pytest.raises(ValidationError):
        config.server.port = 1


@pytest.mark.parametrize(
    "endpoint",
    [
        "http://127.0.0.1:4318",
        "http://localhost:4318",
        "http://[::1]:4318",
        "https://10.0.0.7:4318/otlp",
        "unix:/run/otel.sock",
    ],
)
def test_a_collector_may_be_local_or_at_an_address_of_may_reach(tmp_path: Path, endpoint: str) -> None:
    server = f"server: {{tracing: {{endpoint: '{endpoint}'}}, may_reach: [10.0.0.7]}}\n"
    tracing = load(write_config(tmp_path, GOOD + server)).server.tracing
    assert tracing
    assert (tracing.endpoint, tracing.share) == (endpoint, 1.0)


@pytest.mark.parametrize(
    ("alias", "problem"),
    [
        ("x: nobody", "there is no ensemble or model 'nobody'"),
        ("ann: default", "'ann' is the name of a model or ensemble"),
        ("cappella/new: default", "'cappella/new' is the name of a model or ensemble, or looks like one"),
    ],
)
def test_an_alias_of_nothing_or_in_the_place_of_a_name_is_refused(tmp_path: Path, alias: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(problem)) as raised:
        load(write_config(tmp_path, f"{GOOD}server:\n  aliases:\n    {alias}\n"))
    assert ":10: server.aliases." in raised.value.place


def test_an_alias_means_an_ensemble_or_a_model(tmp_path: Path) -> None:
    aliases = "{openrouter/fusion: default, 'claude-4.5': cappella/default, gpt-5: bob}"
    config = load(write_config(tmp_path, f"{GOOD}server: {{aliases: {aliases}}}\n"))
    meant = [config.meant_by(name) for name in ("openrouter/fusion", "claude-4.5", "gpt-5", "ann")]
    assert meant == ["cappella/default", "cappella/default", "bob", "ann"]
