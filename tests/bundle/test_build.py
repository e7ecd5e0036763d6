"""Bundles hold what the far side needs, and are made anew only where something changed."""

import json
from pathlib import Path
from typing import Any

import pytest

from cappella.bundle import build, manifest
from cappella.bundle.build import BundleOptions
from cappella.bundle.manifest import Target
from cappella.bundle.verify import verify
from cappella.config import Config, load
from cappella.errors import ConfigError
from support.command_line import cappella
from support.small_bundle import CARD, bundled, deployment, wheels, write_wheel
from support.weights_folder import write_model


def times(bundle: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in bundle.rglob("*") if path.is_file()}


def test_a_bundle_holds_files_of_every_role_and_no_pickle(tmp_path: Path) -> None:
    made, _ = manifest.read(bundled(tmp_path))
    assert {file.role for file in made.files} == set(manifest.ROLES)
    assert [file.path for file in made.of("weights")] == [
        f"weights/ann/{name}" for name in ("LICENSE", "config.json", "model.safetensors", "tokenizer.json")
    ]
    licences = {file.path for file in made.of("licence")}
    assert licences >= {"licences/models/ann/LICENSE", "licences/wheels/tune-1.0/LICENSE"}
    assert made.target == Target(made.target.platform, made.target.python, "")


def test_the_same_content_makes_the_same_manifest(tmp_path: Path) -> None:
    first = (bundled(tmp_path / "a") / "manifest.json").read_bytes()
    assert (bundled(tmp_path / "b") / "manifest.json").read_bytes() == first


def test_what_is_there_and_right_is_kept_and_what_is_wrong_is_made_again(tmp_path: Path) -> None:
    bundle = bundled(tmp_path)
    before = times(bundle)
    wrong = bundle / "weights" / "ann" / "model.safetensors"
    wrong.write_bytes(b"x" * wrong.stat().st_size)
    (bundle / "manifest.json").unlink()
    (bundle / "weights" / "ann" / "config.json.partial").write_text("left by a call that was killed")
    bundled(tmp_path)
    after = times(bundle)
    assert set(after) == set(before)
    changed = {Path(path).name for path in before if before[path] != after[path]}
    assert changed == {"manifest.json", "model.safetensors"}
    verify(bundle)


def test_a_call_that_fails_leaves_no_manifest(tmp_path: Path) -> None:
    bundle = bundled(tmp_path)
    (bundle / "config" / "config.yaml").unlink()
    (bundle / "config" / "config.yaml").mkdir()
    with pytest.raises(ConfigError, match="cannot be read or written"):
        bundled(tmp_path)
    assert not (bundle / "manifest.json").exists()
    (bundle / "config" / "config.yaml").rmdir()
    verify(bundled(tmp_path))


def test_a_strange_file_in_the_folder_is_named_and_nothing_is_made(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "diary.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"diary\.txt: is not part"):
        bundled(tmp_path)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["diary.txt"]


def without_paths(config: Config) -> Any:
    raw = config.model_dump(mode="json")
    for model in raw["models"].values():
        del model["weights"], model["card"]
        model["adapters"] = list(model["adapters"])
    return raw


def test_the_config_to_serve_says_the_same_and_leads_to_the_bundles_files(tmp_path: Path) -> None:
    (tmp_path / "card.yaml").write_text(json.dumps(CARD))
    adapter = tmp_path / "lora"
    adapter.mkdir()
    (adapter / "adapter_model.safetensors").write_bytes(b"")
    (adapter / "adapter_config.json").write_text('{"r": 8}')
    path = deployment(tmp_path, card="card.yaml", adapters={"bea": "lora"})
    build.make(path, tmp_path / "out", BundleOptions(wheels(tmp_path / "wheels")))
    (tmp_path / "out").rename(tmp_path / "moved")
    written, served = load.load(path), load.load(tmp_path / "moved" / "config" / "config.yaml")
    assert without_paths(served) == without_paths(written)
    assert served.local["ann"].tool_parser == "hermes"
    assert served.local["ann"].weights.resolve() == tmp_path / "moved" / "weights" / "ann"
    assert served.local["ann"].adapters["bea"].resolve() == tmp_path / "moved" / "weights" / "bea"
    assert served.local["ann"].card == tmp_path / "moved" / "config" / "cards" / "ann.yaml"
    assert (tmp_path / "moved" / "config" / "as_written.yaml").read_text() == path.read_text()


def test_weights_that_two_models_share_are_there_once(tmp_path: Path) -> None:
    path = deployment(tmp_path)
    raw = json.loads(path.read_text())
    raw["models"]["bob"] = raw["models"]["ann"]
    path.write_text(json.dumps(raw))
    build.make(path, tmp_path / "out", BundleOptions(wheels(tmp_path / "wheels")))
    assert [each.name for each in (tmp_path / "out" / "weights").iterdir()] == ["ann"]
    served = load.load(tmp_path / "out" / "config" / "config.yaml")
    assert served.local["bob"].weights == served.local["ann"].weights


def test_weights_in_a_hub_cache_are_links_and_come_as_files(tmp_path: Path) -> None:
    path = deployment(tmp_path)
    weights = tmp_path / "ann" / "model.safetensors"
    weights.rename(tmp_path / "blob")
    weights.symlink_to(tmp_path / "blob")
    build.make(path, tmp_path / "out", BundleOptions(wheels(tmp_path / "wheels")))
    verify(tmp_path / "out")


def test_secrets_stay_and_paths_of_the_server_are_the_far_sides(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = deployment(tmp_path)
    kept = {"audit": {"file": "audit.jsonl", "redact": ["\\d{4}"]}, "runs": {"file": "/srv/runs.sqlite"}}
    server = {"log_dir": "logs", "keys": "keys.yaml", "port": 9000, **kept}
    raw = {**json.loads(path.read_text()), "server": server}
    path.write_text(json.dumps(raw))
    (tmp_path / "keys.yaml").write_text("a secret")
    build.make(path, tmp_path / "out", BundleOptions(wheels(tmp_path / "wheels")))
    assert "provide these on the target machine: server.keys\n" in capsys.readouterr().out
    served = load.load(tmp_path / "out" / "config" / "config.yaml").server
    assert (served.log_dir, served.keys) == tuple(tmp_path / "out" / "config" / name for name in ("logs", "keys.yaml"))
    assert served.audit
    assert served.runs
    assert served.audit.file == tmp_path / "out" / "config" / "audit.jsonl"
    assert [pattern.pattern for pattern in served.audit.redact] == ["\\d{4}"]
    assert served.runs.file == Path("/srv/runs.sqlite")
    assert not list((tmp_path / "out").rglob("keys.yaml"))


def test_a_file_that_would_not_travel_is_named(tmp_path: Path) -> None:
    draft = write_model(tmp_path / "draft")
    path = deployment(tmp_path, engine_args={"speculative_config": {"model": str(draft)}})
    with pytest.raises(ConfigError, match=r"engine_args\.speculative_config: names .*draft"):
        build.make(path, tmp_path / "out", BundleOptions(wheels(tmp_path / "wheels")))


@pytest.mark.parametrize(
    ("tag", "says"),
    [
        ("cp312-cp312-manylinux_2_17_x86_64", "is not for linux_x86_64, Python 3.11"),
        ("cp311-cp311-manylinux_2_17_aarch64", "is not for linux_x86_64"),
        ("cp311-cp311-manylinux_2_31_x86_64", r"glibc 2\.28"),
        ("cp311-cp311-win_amd64", "is not for linux_x86_64"),
    ],
)
def test_a_wheel_that_the_far_side_cannot_load_is_named(tmp_path: Path, tag: str, says: str) -> None:
    write_wheel(tmp_path / "wheels", "odd", tag=tag)
    with pytest.raises(ConfigError, match=says):
        bundled(tmp_path, target=Target("linux_x86_64", "3.11", "2.28"))


def test_the_manifest_says_what_glibc_the_wheels_need(tmp_path: Path) -> None:
    write_wheel(tmp_path / "wheels", "old", tag="cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64")
    write_wheel(tmp_path / "wheels", "new", tag="cp39-abi3-manylinux_2_24_x86_64")
    made, _ = manifest.read(bundled(tmp_path, target=Target("linux_x86_64", "3.11", "2.28")))
    assert made.target.glibc == "2.24"


def test_a_broken_wheel_and_two_of_one_package_are_named(tmp_path: Path) -> None:
    write_wheel(tmp_path / "wheels", "tune", "2.0")
    with pytest.raises(ConfigError, match="two wheels of tune"):
        bundled(tmp_path)
    (tmp_path / "wheels" / "tune-2.0-py3-none-any.whl").write_bytes(b"PK")
    with pytest.raises(ConfigError, match=r"tune-2\.0-py3-none-any\.whl: "):
        bundled(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "exactly one of them"),
        (["--wheels", "wheels", "--lock", "l"], "exactly one of them"),
        (["--wheels", "wheels", "--with-dependencies"], "--with-dependencies: "),
        (["--wheels", "wheels", "--part-bytes", "4 parsecs"], "--part-bytes: "),
        (["--wheels", "wheels", "--part-bytes", "4"], "are too few"),
        (["--wheels", "wheels", "--platform", "windows"], "--platform: "),
        (["--wheels", "nowhere"], "there is no such folder"),
        (["--lock", "nowhere"], "there is no such list of packages"),
    ],
)
def test_options_that_cannot_be_honoured_are_one_line_and_exit_code_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], says: str
) -> None:
    deployment(tmp_path)
    wheels(tmp_path / "wheels")
    monkeypatch.chdir(tmp_path)
    done = cappella("bundle", "c.yaml", "out", *arguments)
    assert done.returncode == 2
    assert says in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_wheels_of_a_lock_list_come_from_the_index_for_the_machine_that_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tags = ("cp311-cp311-manylinux_2_17_x86_64", "cp312-cp312-manylinux_2_17_aarch64")
    for tag in tags:
        write_wheel(tmp_path / "index", "tune", tag=tag)
    write_wheel(tmp_path / "index", "cappella", "0.1.0")
    (tmp_path / "lock.txt").write_text("tune==1.0\ncappella==0.1.0\n")
    for name, value in {"NO_INDEX": "1", "FIND_LINKS": str(tmp_path / "index"), "CONFIG_FILE": "/dev/null"}.items():
        monkeypatch.setenv(f"PIP_{name}", value)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    options = BundleOptions(lock=str(tmp_path / "lock.txt"), target=Target("linux_aarch64", "3.12", "2.28"))
    build.make(deployment(tmp_path), tmp_path / "out", options)
    made, _ = manifest.read(tmp_path / "out")
    assert f"wheels/tune-1.0-{tags[1]}.whl" in {file.path for file in made.of("wheel")}
    assert made.target == Target("linux_aarch64", "3.12", "2.17")
    (tmp_path / "lock.txt").write_text("absent==1.0\n")
    with pytest.raises(ConfigError, match=r"lock\.txt: No matching distribution found for absent"):
        build.make(tmp_path / "c.yaml", tmp_path / "out", options)
