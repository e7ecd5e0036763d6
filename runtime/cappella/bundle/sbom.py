"""The bundle's bill of materials, as CycloneDX 1.6 in JSON."""

import json
import uuid
from collections.abc import Mapping, Sequence
from urllib.parse import quote

from cappella.bundle import page_libraries
from cappella.bundle.manifest import File
from cappella.bundle.origin import Origin
from cappella.bundle.page_libraries import PageLibrary
from cappella.bundle.wheels import Wheel
from cappella.vocabulary import Json

PATH = "sbom/cappella.cdx.json"


def text(files: Sequence[File], wheels: Sequence[Wheel], models: Mapping[str, Origin]) -> bytes:
    """Every package, library of the page and model with its licence and hashes; equal bytes for equal content."""
    hashes = {file.path: file.sha256 for file in files}
    components = [_library(wheel, hashes[f"wheels/{wheel.path.name}"]) for wheel in wheels if wheel.name != "cappella"]
    own = next(wheel for wheel in wheels if wheel.name == "cappella")
    components += [_page_library(each) for each in page_libraries.of(own.path)]
    components += [_model(name, origin, files) for name, origin in models.items()]
    root = {**_library(own, hashes[f"wheels/{own.path.name}"]), "type": "application"}
    depends = [{"ref": root["bom-ref"], "dependsOn": [each["bom-ref"] for each in components]}]
    body = {"metadata": {"component": root}, "components": components, "dependencies": depends}
    serial = uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(body))
    head = {"bomFormat": "CycloneDX", "specVersion": "1.6", "serialNumber": f"urn:uuid:{serial}", "version": 1}
    return (json.dumps({**head, **body}, indent=1, ensure_ascii=False) + "\n").encode()


def _library(wheel: Wheel, sha256: str) -> Json:
    purl = f"pkg:pypi/{wheel.name}@{quote(wheel.version, safe='')}"
    component = {"type": "library", "bom-ref": purl, "name": wheel.name, "version": wheel.version, "purl": purl}
    return {**component, "hashes": _hashes(sha256), **_licences(wheel.licence, wheel.is_spdx)}


def _page_library(library: PageLibrary) -> Json:
    """A library inside Cappella's own wheel, with its files there."""
    purl = f"pkg:npm/{quote(library.package)}@{library.version}"
    component = {"type": "library", "bom-ref": purl, "name": library.package, "version": library.version, "purl": purl}
    inside = [_file(path, sha256) for path, sha256 in library.files.items()]
    return {**component, **_licences(library.licence, is_spdx=True), "components": inside}


def _model(name: str, origin: Origin, files: Sequence[File]) -> Json:
    """A model's component. Only weights from `pull` have a purl; a card's claim is a property."""
    component: Json = {"type": "machine-learning-model", "bom-ref": f"model:{name}", "name": name}
    if origin.revision:
        component |= {"version": origin.revision, "purl": f"pkg:huggingface/{origin.hub_id}@{origin.revision}"}
    elif origin.hub_id:
        component |= {"properties": [{"name": "cappella:unverified_origin", "value": origin.hub_id}]}
    own = [file for file in files if file.path.startswith(f"weights/{name}/")]
    inside = [_file(file.path, file.sha256) for file in own]
    return {**component, **_licences(origin.licence), "components": inside}


def _file(path: str, sha256: str) -> Json:
    return {"type": "file", "name": path, "hashes": _hashes(sha256)}


def _hashes(sha256: str) -> list[Json]:
    return [{"alg": "SHA-256", "content": sha256}]


def _licences(licence: str, is_spdx: bool = False) -> Json:
    """A licence as an SPDX expression only if it was declared as one."""
    if not licence:
        return {}
    return {"licenses": [{"expression": licence} if is_spdx else {"license": {"name": licence}}]}
