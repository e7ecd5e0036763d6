"""Models by their hub id: found in a cache that huggingface_hub made, pulled, listed and removed; over a scripted hub."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cappella.config import cards, hub_library
from support.command_line import cappella
from support.scripted_hub import COMMIT, Hub, files_of, fill_cache, running
from support.weights_folder import TINY, write_model

pytest.importorskip("huggingface_hub")

MORE = {
    "pytorch_model.bin": b"a pickle",
    "model.gguf": b"GGUF",
    "modeling_ann.py": b"code",
    "README.md": b"license: mit",
}
TEMPLATE = {"chat_template.jinja": b"{{ messages }}", "generation_config.json": b'{"temperature": 0.6, "top_k": 20}'}


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    with running({**files_of(write_model(tmp_path / "made")), **TEMPLATE, **MORE}) as server:
        yield server


class Place:
    """A user's own Hugging Face cache and models, and a config."""

    def __init__(self, home: Path, hub: Hub) -> None:
        self.home, self.hub = home, hub
        self.environment = {**hub.environment, "HF_HOME": str(home / "hf"), "CAPPELLA_MODELS": str(home / "models")}
        self.repository = home / "hf" / "hub" / "models--maker--ann"
        self.snapshot = self.repository / "snapshots" / COMMIT

    def config(self, weights: str = "maker/ann") -> Path:
        model = {"weights": weights, "kv_cache_bytes": "2MiB"}
        path = self.home / "c.yaml"
        path.write_text(
            json.dumps({"models": {"ann": model}, "ensembles": {"default": {"panel": ["ann"], "judge": "ann"}}})
        )
        return path

    def run(self, *arguments: str | Path) -> tuple[int, str, str]:
        done = cappella(*arguments, **self.environment)
        return done.returncode, done.stdout, done.stderr

    def fill_cache(self, *options: str) -> None:
        fill_cache(self.hub, self.home / "hf", *options)

    def refuses(self, command: str, *says: str) -> None:
        code, _, error = self.run(command, self.config())
        assert (code, len(error.strip().splitlines())) == (2, 1), error
        assert all(part in error for part in says), error
        assert self.hub.asked == []


@pytest.fixture
def place(tmp_path: Path, hub: Hub) -> Place:
    return Place(tmp_path, hub)


def test_a_hub_id_is_found_in_the_hugging_face_cache_without_a_network(place: Place) -> None:
    place.fill_cache()
    for weights in ("maker/ann", "maker/ann@main", f"maker/ann@{COMMIT}", str(place.repository)):
        code, said, error = place.run("check", place.config(weights))
        assert code == 0, error
        assert f"ann: ok, {place.snapshot}" in said
    code, said, error = place.run("plan", place.config(), "--gpus", "24GiB", "--json")
    assert code == 0, error
    assert json.loads(said)["models"][0]["max_model_len"] == TINY["max_position_embeddings"]
    assert place.hub.asked == []


def test_a_folder_beside_the_config_goes_first(place: Place) -> None:
    place.fill_cache()
    own = write_model(place.home / "maker" / "ann")
    assert f"ann: ok, {own}" in place.run("check", place.config())[1]


@pytest.mark.parametrize("command", ["check", "plan", "serve"])
def test_a_hub_id_that_is_nowhere_is_one_line_with_the_places_and_the_command(place: Place, command: str) -> None:
    places = f"neither in the Hugging Face cache ({place.home / 'hf' / 'hub'}) nor in {place.home / 'models'}"
    place.refuses(command, places, "Run `cappella pull maker/ann`")


def test_a_revision_that_is_not_here_is_told_beside_those_that_are(place: Place) -> None:
    place.fill_cache(f"revision='{COMMIT}'")
    place.refuses("check", f"the cache has it at {COMMIT}")
    code, _, error = place.run("check", place.config(str(place.repository)))
    assert (code, len(error.strip().splitlines())) == (2, 1), error
    assert f"its refs/main names no commit that is in its snapshots, where there are: {COMMIT}" in error


def broken(place: Place, harm: str) -> None:
    match harm:
        case "shard":
            index = {"weight_map": {"a": "model.safetensors", "b": "model-2.safetensors"}}
            (place.snapshot / "model.safetensors.index.json").write_text(json.dumps(index))
        case "listed":
            (place.snapshot / "chat_template.jinja").unlink()
        case "blob":
            (place.snapshot / "model.safetensors").resolve().unlink()
        case "download":
            (place.repository / "blobs" / "0123.incomplete").write_bytes(b"half")
            # As caches are that an older huggingface_hub made.
            (place.repository / "trees" / f"{COMMIT}.json").unlink()


@pytest.mark.parametrize(
    ("harm", "says", "command"),
    [
        ("shard", "names model-2.safetensors, which is missing", "check"),
        ("listed", "chat_template.jinja has not been fetched", "plan"),
        ("blob", "model.safetensors links to a file that is missing", "serve"),
        ("download", "0123.incomplete broke off", "check"),
    ],
)
def test_half_a_snapshot_is_never_taken_for_the_model_and_a_pull_repairs_it(
    place: Place, harm: str, says: str, command: str
) -> None:
    place.fill_cache()
    broken(place, harm)
    place.refuses(command, says, "Run `cappella pull maker/ann`")
    code, _, error = place.run("pull", "maker/ann")
    assert code == 0, error
    assert f"ann: ok, {place.home / 'models' / 'maker' / 'ann'}" in place.run("check", place.config())[1]


def test_the_pull_of_a_config_repairs_the_snapshot_of_a_branch(place: Place) -> None:
    place.fill_cache()
    broken(place, "blob")
    config = place.config("maker/ann@main")
    assert place.run("pull", config)[0] == 0
    code, said, error = place.run("check", config)
    assert code == 0, error
    assert f"ann: ok, {place.home / 'models' / 'maker' / 'ann'}" in said


def test_a_pulled_model_is_found_by_its_name_and_only_what_an_engine_reads_is_pulled(place: Place) -> None:
    code, said, error = place.run("pull", "maker/ann")
    assert code == 0, error
    assert "licence: mit" in said
    folder = place.home / "models" / "maker" / "ann"
    assert not {path.name for path in folder.iterdir()} & set(MORE)
    for weights in ("maker/ann", f"maker/ann@{COMMIT}"):
        assert f"ann: ok, {folder}" in place.run("check", place.config(weights))[1]
    place.hub.asked.clear()
    assert "is complete" in place.run("pull", "maker/ann")[1]
    assert place.hub.asked == []


def test_what_is_in_the_cache_is_not_pulled_again(place: Place) -> None:
    place.fill_cache()
    assert f"is complete in {place.snapshot}" in place.run("pull", "maker/ann")[1]
    assert f"is complete in {place.snapshot}" in place.run("pull", place.config())[1]
    assert place.hub.asked == []


def test_a_revision_and_a_folder_can_be_chosen(place: Place) -> None:
    code, said, error = place.run("pull", "maker/ann", "--revision", COMMIT, "--to", place.home / "mine")
    assert code == 0, error
    assert f"is in {place.home / 'mine'}" in said
    assert f"ann: ok, {place.home / 'mine'}" in place.run("check", place.config("./mine"))[1]


@pytest.mark.parametrize("revision", ["main", "refs/pr/1"])
def test_a_branch_is_pulled_where_a_config_that_names_it_looks(place: Place, revision: str) -> None:
    config = place.config(f"maker/ann@{revision}")
    for target in (config, f"maker/ann@{revision}"):
        code, said, error = place.run("pull", target)
        assert (code, error) == (0, "")
    assert f"maker/ann at {COMMIT[:12]} is complete" in said
    assert "ann: ok, " in place.run("check", config)[1]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("maker/nobody", "maker/nobody: is not on the hub, or is private"),
        ("maker/ann@v9", "maker/ann: has no revision v9"),
        ("nobody", "nobody: is neither a config file nor the name of a model"),
    ],
)
def test_a_name_that_the_hub_does_not_know_is_one_line(place: Place, name: str, says: str) -> None:
    code, _, error = place.run("pull", name)
    assert (code, len(error.strip().splitlines())) == (2, 1), error
    assert says in error


@pytest.mark.parametrize("trouble", ["gated", "no network", "offline", "formats"])
def test_a_model_that_cannot_be_pulled_is_one_line_and_nothing_is_taken_for_it(place: Place, trouble: str) -> None:
    says = "cannot be downloaded"
    match trouble:
        case "gated":
            place.hub.gated, says = True, "is gated, and this account has no access"
        case "no network":
            place.environment["HF_ENDPOINT"] = "http://127.0.0.1:9"
        case "offline":
            place.environment["HF_HUB_OFFLINE"] = "1"
        case "formats":
            place.hub.files, says = MORE, "has no .safetensors file"
    code, _, error = place.run("pull", "maker/ann")
    assert (code, len(error.strip().splitlines())) == (2, 1), error
    assert says in error
    assert place.run("check", place.config())[0] == 2


def test_a_disk_that_is_full_in_the_middle_is_one_line_and_the_next_pull_goes_on(place: Place) -> None:
    # The shell's limit on the size of files, in blocks of 1024 bytes, ends a write as a full disk does.
    command = f"ulimit -f 100; exec {sys.executable} -m cappella pull maker/ann"
    done = subprocess.run(
        ["bash", "-c", command], check=False, env={**os.environ, **place.environment}, capture_output=True, text=True
    )
    assert (done.returncode, len(done.stderr.strip().splitlines())) == (2, 1), done.stderr
    assert "it continues where it stopped" in done.stderr
    place.hub.asked.clear()
    place.refuses("check", "`cappella pull` has not fetched all of it")
    code, _, error = place.run("pull", "maker/ann")
    assert code == 0, error
    assert ("model.safetensors", "bytes=102400-") in [(path.split("/")[-1], at) for path, at in place.hub.asked]
    assert place.run("check", place.config())[0] == 0


def test_models_are_listed_with_their_users_shown_and_removed(place: Place) -> None:
    place.fill_cache()
    place.run("pull", "maker/ann", "--revision", COMMIT, "--to", place.home / "models" / "maker" / "bob")
    config = place.config()
    listed = json.loads(place.run("models", "--json", "--config", config)[1])
    assert [(each["name"], each["source"], each["used_by"], each["problem"]) for each in listed] == [
        ("maker/ann", "Hugging Face cache", [str(config)], ""),
        ("maker/bob", "cappella pull", [], ""),
    ]
    assert {(each["context_tokens"], each["family"], each["licence"]) for each in listed} == {(1024, "llama", "mit")}
    assert f"folder: {place.snapshot}" in place.run("models", "show", "maker/ann")[1]
    assert place.run("models", "rm", "maker/ann")[0] == 2
    assert place.snapshot.is_dir()
    for name in ("maker/ann", "maker/bob"):
        code, said, error = place.run("models", "rm", name, "--yes")
        assert (code, said) == (0, f"{name}: deleted\n"), error
    assert json.loads(place.run("models", "--json")[1]) == []
    assert "is not on this machine" in place.run("models", "show", "maker/ann")[2]


def test_a_model_is_removed_though_a_copy_of_it_has_the_same_commits(place: Place) -> None:
    place.fill_cache()
    copies = [f"maker{number}/ann" for number in range(4)]
    for name in copies:
        shutil.copytree(place.repository, hub_library.repository(name, place.repository.parent), symlinks=True)
    assert place.run("models", "rm", copies[0], "--yes")[0] == 0
    assert [each["name"] for each in json.loads(place.run("models", "--json")[1])] == ["maker/ann", *copies[1:]]


def test_a_config_that_is_named_and_is_none_is_one_line(place: Place) -> None:
    code, said, error = place.run("models", "--config", place.home / "none.yaml")
    assert (code, said, len(error.strip().splitlines())) == (2, "", 1)


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({".pulling.json": "{}"}, "`cappella pull` has not fetched all of it"),
        ({"config.json": "{}"}, "there is no .safetensors file"),
        ({"model.gguf": ""}, "no .safetensors file: GGUF and pickles are not loaded"),
    ],
)
def test_a_model_without_weights_is_listed_with_what_it_lacks(place: Place, files: dict[str, str], says: str) -> None:
    folder = place.home / "models" / "maker" / "ann"
    folder.mkdir(parents=True)
    for name, text in files.items():
        (folder / name).write_text(text)
    (found,) = json.loads(place.run("models", "--json")[1])
    assert found["problem"] == says


def test_half_a_model_is_listed_as_such_and_can_be_removed(place: Place) -> None:
    place.fill_cache()
    broken(place, "blob")
    (found,) = json.loads(place.run("models", "--json")[1])
    assert found["problem"] == "model.safetensors links to a file that is missing"
    assert place.run("models", "rm", "maker/ann", "--yes")[0] == 0
    assert not place.repository.exists()


def test_what_only_a_broken_commit_links_to_goes_with_it(place: Place) -> None:
    place.fill_cache()
    other = place.snapshot.with_name("f" * 40)
    other.mkdir()
    (other / "config.json").symlink_to((place.snapshot / "config.json").resolve())
    blobs = place.repository / "blobs"
    kept = (other / "config.json").resolve()
    broken(place, "blob")
    assert place.run("models", "rm", str(place.snapshot), "--yes")[0] == 0
    assert [each for each in blobs.iterdir() if each.suffix != ".incomplete"] == [kept]


def test_a_card_of_another_model_is_not_where_a_tuned_one_comes_from(place: Place) -> None:
    from cappella.bundle import pull
    from cappella.config import load

    path = place.home / "c.yaml"
    model = {"weights": "me/tune", "card": "Qwen/Qwen3-8B"}
    path.write_text(
        json.dumps({"models": {"ann": model}, "ensembles": {"default": {"panel": ["ann"], "judge": "ann"}}})
    )
    config = load.load(path)
    assert pull.sources(path, config)["ann"].hub_id == "me/tune"
    assert not config.local["ann"].weights.is_relative_to(place.home)


@pytest.mark.parametrize("here", [True, False])
def test_a_card_is_made_from_files_here_or_on_the_hub_and_plans_without_them(place: Place, here: bool) -> None:
    if here:
        place.fill_cache()
    code, said, error = place.run("card", "maker/ann", "--out", place.home / "card.yaml")
    assert (code, said) == (0, ""), error
    card = cards.load(place.home / "card.yaml")
    assert (card.hub_id, card.revision, card.licence, card.context_tokens) == ("maker/ann", COMMIT, "mit", 1024)
    assert (card.sampling.temperature, card.sampling.top_k) == (0.6, 20)
    assert card.parameters == pytest.approx(card.weight_bytes / 2, rel=0.05)
    path = place.config("nowhere")
    config = json.loads(path.read_text())
    config["models"]["ann"]["card"] = "card.yaml"
    path.write_text(json.dumps(config))
    code, said, error = place.run("plan", path, "--gpus", "24GiB", "--json")
    assert code == 0, error
    assert json.loads(said)["models"][0]["max_model_len"] == 1024


@pytest.mark.parametrize("here", [True, False])
def test_a_card_of_quantised_weights_counts_them_unpacked(tmp_path: Path, here: bool) -> None:
    config = {**TINY, "quantization_config": {"quant_method": "awq", "bits": 4, "group_size": 128}}
    inner, hidden = TINY["vocab_size"], TINY["hidden_size"]
    shapes = {"model.embed_tokens.weight": ("BF16", (inner, hidden)), "lm_head.weight": ("BF16", (inner, hidden))}
    packed = {"model.layers.0.mlp.up_proj.qweight": ("I32", (1000, 105))}
    made = write_model(tmp_path / "made", config, shapes={**shapes, **packed})  # type: ignore[dict-item]
    with running({**files_of(made), **TEMPLATE}) as hub:
        place = Place(tmp_path, hub)
        if here:
            place.fill_cache()
        code, _, error = place.run("card", "maker/ann", "--out", tmp_path / "card.yaml")
    assert code == 0, error
    # The packed weights of 420,000 bytes are 800,000 values with their scales.
    assert cards.load(tmp_path / "card.yaml").parameters == pytest.approx(2 * 128 * 64 + 800_000, rel=0.01)
