"""The bill of materials names every wheel and every model, with hashes, licences, and no origin that nobody checked."""

import json
from pathlib import Path

from cappella.bundle import manifest, origin, page_libraries
from cappella.bundle.origin import Origin
from support.small_bundle import PAGE_LIBRARIES, bundled, write_wheel


def test_every_package_and_every_model_is_on_it(tmp_path: Path) -> None:
    bundle = bundled(tmp_path)
    made, _ = manifest.read(bundle)
    bill = json.loads((bundle / "sbom" / "cappella.cdx.json").read_text())
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    assert bill["metadata"]["component"]["purl"].startswith("pkg:pypi/cappella@")
    tune, *_, ann = bill["components"]
    hashes = {file.path: file.sha256 for file in made.files}
    assert tune["purl"] == "pkg:pypi/tune@1.0"
    assert tune["licenses"] == [{"expression": "MIT"}]
    assert tune["hashes"] == [{"alg": "SHA-256", "content": hashes["wheels/tune-1.0-py3-none-any.whl"]}]
    assert ann["type"] == "machine-learning-model"
    assert "purl" not in ann
    assert {each["name"]: each["hashes"][0]["content"] for each in ann["components"]} == {
        path: sha256 for path, sha256 in hashes.items() if path.startswith("weights/")
    }


def test_what_was_pulled_has_its_commit(tmp_path: Path) -> None:
    (tmp_path / "ann").mkdir()
    origin.write(tmp_path / "ann" / origin.NAME, Origin("maker/ann", "a" * 40, "apache-2.0"))
    bill = json.loads((bundled(tmp_path) / "sbom" / "cappella.cdx.json").read_text())
    (ann,) = (each for each in bill["components"] if each["name"] == "ann")
    assert ann["purl"] == f"pkg:huggingface/maker/ann@{'a' * 40}"
    assert ann["licenses"] == [{"license": {"name": "apache-2.0"}}]
    assert len(ann["components"]) == 4


def test_the_libraries_inside_the_page_are_on_it_with_their_files(tmp_path: Path) -> None:
    bill = json.loads((bundled(tmp_path) / "sbom" / "cappella.cdx.json").read_text())
    vendored = json.loads(PAGE_LIBRARIES)
    found = {each["name"]: each for each in bill["components"] if each["bom-ref"].startswith("pkg:npm/")}
    assert set(found) == {each["package"] for each in vendored.values()} == {"katex", "@highlightjs/cdn-assets"}
    assert found["@highlightjs/cdn-assets"]["purl"].startswith("pkg:npm/%40highlightjs/cdn-assets@")
    for folder, each in vendored.items():
        component = found[each["package"]]
        assert component["version"] == each["version"]
        assert component["licenses"] == [{"expression": each["licence"]}]
        hashes = {inside["name"]: inside["hashes"][0]["content"] for inside in component["components"]}
        assert hashes == {f"{page_libraries.FOLDER}/{folder}/{name}": digest for name, digest in each["sha256"].items()}
    assert {each["bom-ref"] for each in bill["components"]} == set(bill["dependencies"][0]["dependsOn"])


def test_a_wheel_of_cappella_without_libraries_has_none_on_it(tmp_path: Path) -> None:
    assert page_libraries.of(write_wheel(tmp_path, "cappella")) == []
