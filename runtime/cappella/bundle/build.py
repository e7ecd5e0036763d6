"""`cappella bundle`: one folder with all that the target machine needs; the manifest is written last."""

import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

import cappella
from cappella.bundle import contents, file_copy, manifest, origin, sbom, signing, wheels
from cappella.bundle.contents import Item
from cappella.bundle.install import this_machine
from cappella.bundle.manifest import NAME, PARTIAL, SIGNATURE_NAME, File, Manifest, Target, part_path
from cappella.bundle.origin import Origin
from cappella.bundle.progress import Bar, human, step
from cappella.bundle.wheels import Wheel
from cappella.config import Config, load
from cappella.config.fields import Bytes
from cappella.errors import ConfigError
from cappella.placement import folder

RETRY_HINT = "Make room, or fix the disk, and run it again: finished files are kept"
OWN_WHEEL = "wheels/cappella-"
MIN_PART_BYTES = 1 << 20
# The oldest that Python 3.11's wheels are built for; the default if this machine has another libc.
OLDEST_GLIBC = "2.17"


@dataclass(frozen=True, slots=True)
class BundleOptions:
    """Options of a bundle: the wheels' folder or lock list, the target machine, part size and signing key."""

    wheels: Path | None = None
    lock: str | None = None
    with_dependencies: bool = False
    target: Target = this_machine()
    part_bytes: int | None = None
    key: Path | None = None


def target_machine(platform: str | None, python: str | None, glibc: str | None) -> Target:
    """The target machine; missing parts are this machine's. Raises ConfigError for an invalid name."""
    own = this_machine()
    forms = {"--platform": (platform, r"linux_\w+"), "--python": (python, r"3\.\d+"), "--glibc": (glibc, r"2\.\d+")}
    for option, (value, form) in forms.items():
        if value is not None and not re.fullmatch(form, value):
            raise ConfigError(option, f"{value!r} is not valid", "Write it as linux_x86_64, 3.11, 2.28")
    return Target(platform or own.platform, python or own.python, glibc or own.glibc or OLDEST_GLIBC)


def parsed_bytes(text: str) -> int:
    """A size such as `4GB` in bytes. Raises ConfigError."""
    try:
        return int(TypeAdapter(Bytes).validate_python(text))
    except ValidationError as error:
        raise ConfigError("--part-bytes", f"{text!r} is not a size", "Write it as 4GB or 700MiB") from error


def make(path: Path, out: Path, options: BundleOptions) -> None:
    """Make the bundle. Raises ConfigError; the next call keeps the finished files."""
    _require_possible(options)
    key = signing.private_key(options.key) if options.key else None
    config = load.load(path)
    for name, model in config.local.items():
        folder.inspect(name, model.weights, model.card)
    found_wheels = wheels.gathered(_wheel_folder(options), options.target)
    target = replace(options.target, glibc=wheels.oldest_glibc(found_wheels))
    with file_copy.disk_errors(out, RETRY_HINT):
        items = _items(path, config, found_wheels)
        files = _store(out, items, options.part_bytes)
        bill = Item(sbom.PATH, "sbom", sbom.text(files, found_wheels, _origins(config)))
        files.append(_stored(out, bill, None, Bar()))
        text = manifest.write(out, Manifest(cappella.__version__, target, tuple(files)))
        if key:
            signing.sign(text, out / SIGNATURE_NAME, key)
    _report(out, files, target, hashlib.sha256(text).hexdigest(), bool(key))
    _print_notes(config, found_wheels)


def _require_possible(options: BundleOptions) -> None:
    if (options.wheels is None) == (options.lock is None):
        raise ConfigError("--wheels, --lock", "exactly one of them must name the source of the wheels", "Give one")
    if options.with_dependencies and options.lock is None:
        raise ConfigError("--with-dependencies", "needs --lock", "Remove it")
    if options.part_bytes is not None and options.part_bytes < MIN_PART_BYTES:
        raise ConfigError("--part-bytes", f"{options.part_bytes} bytes are too few", "Use 1MiB or more")


def _wheel_folder(options: BundleOptions) -> Path:
    if options.lock is None:
        assert options.wheels is not None
        return options.wheels
    return wheels.downloaded(options.lock, options.target, options.with_dependencies)


def _items(path: Path, config: Config, found_wheels: Sequence[Wheel]) -> list[Item]:
    items = [*contents.configs(path, config), *contents.weights(config)]
    return [*items, *(item for wheel in found_wheels for item in wheel.items)]


def _store(out: Path, items: Sequence[Item], part_bytes: int | None) -> list[File]:
    """Store all items and remove the leftovers of an interrupted call. The old manifest is deleted first."""
    places = {place for item in items for place in _places(item, part_bytes)} | {sbom.PATH}
    _require_no_other_files(out, places | {NAME, SIGNATURE_NAME})
    file_copy.require_space(out, sum(item.size_bytes for item in items if not (out / item.path).exists()))
    for name in (NAME, SIGNATURE_NAME):
        (out / name).unlink(missing_ok=True)
    with step("bundling", sum(item.size_bytes for item in items)) as bar:
        files = [_stored(out, item, part_bytes, bar) for item in items]
    for place in places:
        (out / f"{place}{PARTIAL}").unlink(missing_ok=True)
    return files


def _part_bytes(item: Item, part_bytes: int | None) -> int | None:
    """Cappella's own wheel stays whole: it runs from where it lies, and joins the parts of all others."""
    return None if item.path.startswith(OWN_WHEEL) else part_bytes


def _places(item: Item, part_bytes: int | None) -> Iterator[str]:
    """The paths of an item or of its parts."""
    part_bytes = _part_bytes(item, part_bytes)
    if isinstance(item.content, bytes) or part_bytes is None or item.size_bytes <= part_bytes:
        yield item.path
    else:
        yield from (part_path(item.path, number + 1) for number in range(ceil(item.size_bytes / part_bytes)))


def _require_no_other_files(out: Path, places: set[str]) -> None:
    for home, _, names in os.walk(out):
        for name in names:
            path = Path(home, name)
            if path.relative_to(out).as_posix().removesuffix(PARTIAL) not in places or path.is_symlink():
                raise ConfigError(str(path), "is not part of this bundle", "Remove it, or use an empty folder")


def _stored(out: Path, item: Item, part_bytes: int | None, bar: Bar) -> File:
    if isinstance(item.content, Path):
        return file_copy.store(item.content, out, item.path, item.role, _part_bytes(item, part_bytes), bar)
    at = out / item.path
    if not at.is_file() or at.read_bytes() != item.content:
        manifest.write_atomically(at, item.content)
    bar.add(item.size_bytes)
    return File(item.path, item.size_bytes, hashlib.sha256(item.content).hexdigest(), item.role)


def _origins(config: Config) -> dict[str, Origin]:
    cards = {model.weights.resolve(): model.card for model in config.local.values()}
    return {name: origin.of(at, cards.get(at)) for name, at in contents.folders(config).items()}


def _report(out: Path, files: Sequence[File], target: Target, sha256: str, signed: bool) -> None:
    size, cut = human(sum(file.size_bytes for file in files)), sum(bool(file.parts) for file in files)
    glibc = f", glibc {target.glibc} or newer" if target.glibc else ""
    machine = f"{target.platform}, Python {target.python}{glibc}"
    print(f"{out}: {len(files)} files ({cut} in parts), {size}, for {machine}")
    print(f"SHA-256 of its manifest{', which is signed' if signed else ''}: {sha256}")


def _print_notes(config: Config, found_wheels: Sequence[Wheel]) -> None:
    """Print what needs a person's attention."""
    if behind := contents.left_behind(config):
        print(f"not in the bundle; provide these on the target machine: {', '.join(behind)}")
    unlicensed_models = [name for name, each in _origins(config).items() if not each.licence]
    if unlicensed_models:
        print(f"no known licence: {', '.join(unlicensed_models)}. Check before you pass them on")
    if unlicensed := [wheel.name for wheel in found_wheels if not wheel.licence and not wheel.licence_files]:
        print(f"wheels without a licence: {', '.join(unlicensed)}")
