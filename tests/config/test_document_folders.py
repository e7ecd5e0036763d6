"""The `documents` section of a config."""

from pathlib import Path

import pytest

from cappella.config.load import load
from cappella.errors import ConfigError

GOOD = """\
models:
  ann: {weights: ./ann, max_model_len: 64, kv_cache_bytes: 1MiB}
  emb: {weights: ./emb, max_model_len: 64, task: embed}
  rank: {weights: ./rank, max_model_len: 64, task: rerank}
documents:
  handbook: {folder: papers, languages: [en, de], embedder: emb, reranker: rank, index: state/h.db}
  other: {folder: papers}
ensembles:
  default: {panel: [ann, ann], judge: ann}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "papers").mkdir()
    (tmp_path / "paper.txt").write_text("A file.")
    return tmp_path / "c.yaml"


def test_paths_are_relative_to_the_file(file: Path) -> None:
    file.write_text(GOOD)
    handbook = load(file).documents["handbook"]
    assert (handbook.folder, handbook.index) == (file.parent / "papers", file.parent / "state/h.db")


@pytest.mark.parametrize(
    ("old", "new", "place", "says"),
    [
        ("other: {folder: papers}", "other: {folder: missing}", "documents.other.folder", "does not exist"),
        ("other: {folder: papers}", "other: {folder: paper.txt}", "documents.other.folder", "is no folder"),
        ("other: {folder: papers}", "other: {folder: papers, index: state/h.db}", "other.index", "handbook, too"),
        ("other: {folder: papers}", "other: {folder: papers, index: paper.txt}", "other.index", "is no index"),
        ("languages: [en, de]", "languages: [en, klingon]", "handbook.languages", "'klingon' is not a language"),
        ("embedder: emb", "embedder: rank", "handbook.embedder", "Use one of emb"),
        ("embedder: emb", "embedder: nobody", "handbook.embedder", "no such model"),
        ("reranker: rank", "reranker: ann", "handbook.reranker", "Use one of rank"),
    ],
)
def test_a_mistake_is_told_with_its_place(file: Path, old: str, new: str, place: str, says: str) -> None:
    file.write_text(GOOD.replace(old, new))
    with pytest.raises(ConfigError) as caught:
        load(file)
    assert place in str(caught.value)
    assert says in str(caught.value)
    assert caught.value.place.startswith(f"{file}:")


def test_a_list_whose_only_item_is_wrong_is_not_told_to_be_empty_as_well(file: Path) -> None:
    file.write_text(GOOD.replace("languages: [en, de]", "languages: [english]"))
    with pytest.raises(ConfigError) as caught:
        load(file)
    assert "'english' is not a language" in str(caught.value)
    assert "at least" not in str(caught.value)
    file.write_text(GOOD.replace("languages: [en, de]", "languages: []"))
    with pytest.raises(ConfigError, match="at least 1 item"):
        load(file)
