"""`cappella check`: every mistake at once, also those that an engine would tell minutes after its start."""

import json
from pathlib import Path
from typing import Any

import pytest

from support.command_line import cappella
from support.tool_server import command as tool_command
from support.weights_folder import TINY, write_model

QWEN, LLAMA, OSS = "Qwen/Qwen3-8B", "meta-llama/Llama-3.1-8B-Instruct", "openai/gpt-oss-20b"


def checked(path: Path, text: str, *options: str) -> tuple[int, list[str]]:
    """The exit code, and the mistakes with their places in the file."""
    path.write_text(text)
    done = cappella("check", str(path), *options)
    lines = [line.removeprefix("error: ").replace(f"{path}:", "line ") for line in done.stderr.strip().splitlines()]
    return done.returncode, lines


def tiny(home: Path, name: str = "ann", **config: Any) -> None:
    """A model with a context of 1,024 tokens."""
    write_model(home / name, {**TINY, "max_position_embeddings": 1024, **config})


def test_all_mistakes_of_form_are_told_with_line_key_and_what_was_meant(tmp_path: Path) -> None:
    text = """models:
  qwen:
    weights: Qwen/Qwen3-8B
    max_modl_len: 9
    kv_cache_dtype: fp7
  llama-3.1:
    weights: meta-llama/Llama-3.1-8B-Instruct
    engine_args: {sed: 1, seed: [1]}
ensembles:
  default:
    panel: [qwen, {model: llama-3.1, temperature: hot}]
    jugde: qwen
server: {prot: 1}
"""
    code, lines = checked(tmp_path / "c.yaml", text)
    assert code == 2
    assert [line.split(": ")[:2] for line in lines] == [
        ["line 4", "models.qwen.max_modl_len"],
        ["line 5", "models.qwen.kv_cache_dtype"],
        ["line 8", "models.llama-3.1.engine_args.sed"],
        ["line 8", "models.llama-3.1.engine_args.seed"],
        ["line 11", "ensembles.default.panel.1.temperature"],
        ["line 12", "ensembles.default.jugde"],
        ["line 13", "server.prot"],
    ]
    assert [line.rpartition(" Did you mean ")[2] for line in lines if "Did you mean" in line] == [
        "max_model_len?",
        "seed?",
        "judge?",
        "port?",
    ]


def test_mistakes_of_meaning_are_told_at_once_too(tmp_path: Path) -> None:
    tiny(tmp_path)
    text = """models: {ann: {weights: ann}}
ensembles:
  default: {panel: [ann, bob], judge: ann}
  second: {panel: [ann], judge: cat}
server: {aliases: {x: nothing}}
"""
    code, lines = checked(tmp_path / "c.yaml", text)
    assert (code, [line.partition(": there")[0] for line in lines]) == (
        2,
        [
            "line 3: ensembles.default.panel.1",
            "line 4: ensembles.second.judge",
            "line 5: server.aliases.x",
        ],
    )


def test_another_command_tells_them_too_and_the_server_the_first_with_their_number(tmp_path: Path) -> None:
    from cappella.config import load
    from cappella.errors import Mistakes

    path = tmp_path / "c.yaml"
    path.write_text(
        "models: {ann: {weights: ann, x1: 1, y1: 1, z1: 1}}\nensembles: {default: {panel: [ann], judge: ann}}\n"
    )
    assert cappella("plan", str(path)).stderr.count("error: ") == 3
    with pytest.raises(Mistakes, match=r"x1: unknown key.* 2 more mistakes: `cappella check` names all") as caught:
        load.load(path)
    assert "\n" not in str(caught.value)


def test_what_an_engine_would_refuse_later_is_told_in_the_order_of_the_file(tmp_path: Path) -> None:
    tiny(tmp_path)
    tiny(tmp_path, "awq", quantization_config={"quant_method": "awq", "group_size": 128})
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_model.safetensors").touch()
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps({"r": 1024}))
    text = """models:
  ann:
    weights: ann
    max_model_len: 2000
    adapters: {law: adapter}
  awq.one:
    weights: awq
    max_model_len: 512
    kv_cache_dtype: fp8
  gone: {weights: gone}
ensembles:
  default: {panel: [{model: ann, max_completion_tokens: 300}], judge: awq.one}
"""
    code, lines = checked(tmp_path / "c.yaml", text, "--gpus", "V100-32")
    assert code == 2
    assert [line.partition(". ")[0] for line in lines] == [
        "line 4: models.ann.max_model_len: 2000 is more than the model's own context of 1024 tokens",
        "line 5: models.ann.adapters: rank 1024 is more than vLLM supports",
        "line 7: models.awq.one.weights: weights in awq need a compute capability of 7.5, and a GPU has 7.0",
        "line 9: models.awq.one.kv_cache_dtype: a KV cache in fp8 needs a compute capability of 8.9, and a GPU has 7.0",
        f"line 10: models.gone.weights: {tmp_path / 'gone'}: there is no such folder",
        (
            "line 12: ensembles.default.judge: the context of awq.one is 512 tokens: 1 answers of up to 300 together and its"
            " own 128 leave no room for a question, so that answers would be cut"
        ),
        "GPU 0 (V100-32): its compute capability is 7.0, and vllm 0.32 needs 7.5",
    ]


def test_weights_that_are_not_here_are_checked_by_their_card(tmp_path: Path) -> None:
    text = f"""models:
  one: {{weights: {QWEN}, max_model_len: 60000}}
  two: {{weights: {OSS}}}
ensembles: {{default: {{panel: [one, two], judge: one}}}}
"""
    code, lines = checked(tmp_path / "c.yaml", text, "--gpus", "T4")
    assert code == 2
    told = "\n".join(lines)
    assert f"`cappella pull {QWEN}` to fetch it" in told
    assert "60000 is more than the model's own context of 40960 tokens" in told
    assert "weights in mxfp4 need a compute capability of 8.0" in told


def test_a_config_that_does_not_fit_the_gpus_is_told_so_with_what_would(tmp_path: Path) -> None:
    text = f"""models: {{one: {{weights: {LLAMA}, max_model_len: 8192}}}}
ensembles: {{default: {{panel: [one], judge: one}}}}
"""
    code, lines = checked(tmp_path / "c.yaml", text, "--gpus", "T4")
    assert code == 2
    assert any("they need at least" in line for line in lines)
    assert "  one: {weights: meta-llama/Llama-3.2-3B-Instruct}" in lines
    assert not any("they need at least" in line for line in checked(tmp_path / "c.yaml", text, "--gpus", "L4")[1])


@pytest.mark.parametrize(
    ("quantization", "stored", "says"),
    [
        ("fp8", None, "Write fp8_per_tensor"),
        ("awq", None, "these are not quantised"),
        ("fp8_per_tensor", "awq", "these weights are quantised already (awq)"),
        ("fp8_per_tensor", None, None),
        ("awq", "awq", None),
    ],
)
def test_quantisation_that_the_weights_do_not_have_is_told(
    tmp_path: Path, quantization: str, stored: str | None, says: str | None
) -> None:
    from cappella.config import load
    from cappella.placement import checks

    settings: dict[str, Any] = {"quantization_config": {"quant_method": stored}} if stored else {}
    tiny(tmp_path, "ann", **settings)
    model = {"weights": "ann", "engine_args": {"quantization": quantization}}
    (tmp_path / "c.yaml").write_text(
        json.dumps({"models": {"ann": model}, "ensembles": {"default": {"panel": ["ann"], "judge": "ann"}}})
    )
    found = checks.mistakes(load.load(tmp_path / "c.yaml"), None)
    assert [str(error) for error in found if "quantization" in str(error)] == [str(error) for error in found]
    assert (says or "") in "".join(map(str, found))
    assert bool(found) == bool(says)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("select, select: {by: [agreement]}", ", no judge"),
        ("select, select: {by: [agreement]}, judge: ann", ", no judge"),
        ("vote", ", judge ann"),
    ],
)
def test_the_judge_that_runs_ask_is_named(tmp_path: Path, options: str, says: str) -> None:
    tiny(tmp_path)
    text = f"models: {{ann: {{weights: ann}}}}\nensembles: {{default: {{panel: [ann, ann], strategy: {options}}}}}\n"
    (tmp_path / "c.yaml").write_text(text)
    lines = cappella("check", str(tmp_path / "c.yaml")).stdout.splitlines()
    assert f"cappella/default: ann, ann#2 (quorum 2){says}" in lines


def test_vllm_is_not_asked_for_parsers_that_a_shipped_card_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cappella.config import load
    from cappella.engines.vllm import own_parser
    from cappella.errors import ConfigError

    monkeypatch.setattr("sys.executable", "false")
    path = tmp_path / "c.yaml"
    text = f"models: {{one: {{weights: {QWEN}%s}}}}\nensembles: {{default: {{panel: [one], judge: one}}}}\n"
    path.write_text(text % "")
    assert load.load(path).local["one"].reasoning_parser == "qwen3"
    assert own_parser.mistakes(load.load(path).local) == []
    path.write_text(text % ", reasoning_parser: other")
    with pytest.raises(ConfigError, match="cannot be imported"):
        own_parser.mistakes(load.load(path).local)


@pytest.mark.vllm
def test_real_vllm_is_asked_for_flags_and_parsers(tmp_path: Path) -> None:
    tiny(tmp_path)
    text = """models:
  ann:
    weights: ann
    max_model_len: 1024
    engine_args: {stream_interval: two, seed: 1}
    tool_parser: hermess
    reasoning_parser: qwen3
ensembles: {default: {panel: [ann], judge: {model: ann, analysis_max_tokens: 64}}}
"""
    code, lines = checked(tmp_path / "c.yaml", text)
    assert code == 2
    flag, parser = lines
    assert flag.startswith(
        "line 5: models.ann.engine_args.stream_interval: vLLM refuses it: argument --stream-interval"
    )
    assert parser == "line 6: models.ann.tool_parser: vLLM has no such parser: 'hermess'. Did you mean hermes?"


def with_tools(folder: Path, **tools: Any) -> Path:
    """A config over a server that runs elsewhere, with these tool servers."""
    config = {
        "models": {"ann": {"url": "http://127.0.0.1:1/v1", "max_model_len": 1000}},
        "ensembles": {"default": {"panel": ["ann"], "judge": "ann", "analysis": "off"}},
        "tools": tools,
    }
    path = folder / "c.yaml"
    path.write_text(json.dumps(config))
    return path


def test_tool_servers_are_shown_with_their_tools_and_what_confines_them(tmp_path: Path) -> None:
    done = cappella("check", str(with_tools(tmp_path, small={"command": tool_command()})), "--tools")
    lines = done.stdout.splitlines()
    (head,) = (line for line in lines if line.startswith("small: ok, "))
    assert "1 prompts, 2 resources; confined by: " in head
    assert "  echo: Say it again." in lines
    assert done.returncode == ("PROBLEM" in done.stdout)


def test_a_tool_server_with_a_problem_is_exit_code_1(tmp_path: Path) -> None:
    tools = {"broken": {"command": tool_command("ends")}, "lying": {"command": tool_command("lying")}}
    done = cappella("check", str(with_tools(tmp_path, **tools)), "--tools")
    assert done.returncode == 1
    assert "broken: PROBLEM: it ended with exit code 4 (no settings found)" in done.stdout
    assert "  PROBLEM: tool 'long' is left out" in done.stdout
    assert done.stderr == ""


def test_without_tools_no_tool_server_is_started(tmp_path: Path) -> None:
    done = cappella("check", str(with_tools(tmp_path, broken={"command": tool_command("ends")})))
    assert done.returncode == 0
    assert "broken" not in done.stdout
