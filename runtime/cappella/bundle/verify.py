"""`cappella verify`: check that a bundle matches its manifest exactly."""

import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from cappella.bundle import file_copy, signing
from cappella.bundle.manifest import NAME, SIGNATURE_NAME, File, Manifest, read
from cappella.bundle.progress import Bar, human, step
from cappella.errors import ConfigError

RETRY_HINT = "Copy it again"


def verify(bundle: Path, key: Path | None = None, partial: bool = False) -> Manifest:
    """Check every byte. Raises ConfigError that names a file; with `partial`, files may be missing."""
    with file_copy.disk_errors(bundle, RETRY_HINT):
        manifest = opened(bundle, key)
        missing = _check_names(bundle, manifest, partial)
        with step("verifying", sum(each.size_bytes for each in manifest.stored if each.path not in missing)) as bar:
            present = sum(_check_hashes(bundle, file, missing, bar) for file in manifest.files)
    _report(manifest, present, missing)
    return manifest


def opened(bundle: Path, key: Path | None) -> Manifest:
    """The manifest, with its signature checked if a key is given. Raises ConfigError."""
    manifest, text = read(bundle)
    signature = bundle / SIGNATURE_NAME
    if key:
        signing.check(text, signature, key)
        print(f"signature verified with {key}")
    elif signature.exists():
        print("signature not checked: pass the maker's public key with --key")
    return manifest


def check_complete(bundle: Path, manifest: Manifest) -> None:
    """Check names and sizes without reading the files. Raises ConfigError."""
    _check_names(bundle, manifest, partial=False)


def _check_names(bundle: Path, manifest: Manifest, partial: bool) -> set[str]:
    """The missing paths. Raises ConfigError for an extra file, a link or a wrong size."""
    sizes = dict(_lying(bundle))
    known = {stored.path: stored for stored in manifest.stored}
    for path in sorted(set(sizes) - set(known) - {NAME, SIGNATURE_NAME}):
        raise ConfigError(str(bundle / path), "is not in the manifest", "Remove it, and find out where it came from")
    missing = {path for path in known if path not in sizes}
    if missing and not partial:
        path = next(path for path in known if path in missing)
        raise ConfigError(str(bundle / path), f"is missing ({len(missing)} in all)", "Copy the rest, or use --partial")
    for path, stored in known.items():
        if path in sizes and sizes[path] != stored.size_bytes:
            problem = f"has {sizes[path]} bytes, but the manifest says {stored.size_bytes}"
            raise ConfigError(str(bundle / path), problem, RETRY_HINT)
    return missing


def _lying(bundle: Path) -> Iterator[tuple[str, int]]:
    """Every file of the bundle with its size. Raises ConfigError for links and special files."""
    for folder, folders, files in os.walk(bundle, onerror=_raise):
        for name in sorted(folders + files):
            path = Path(folder, name)
            status = path.lstat()
            if stat.S_ISREG(status.st_mode):
                yield path.relative_to(bundle).as_posix(), status.st_size
            elif not stat.S_ISDIR(status.st_mode):
                kind = "a symbolic link" if path.is_symlink() else "neither a file nor a folder"
                raise ConfigError(
                    str(path), f"is {kind}, which a bundle must not have", "Replace it with the file itself"
                )


def _raise(error: OSError) -> None:
    raise error


def _check_hashes(bundle: Path, file: File, missing: set[str], bar: Bar) -> int:
    """Check the parts of a file that exist; returns their number. Raises ConfigError for a wrong one."""
    present, file_hash = [stored for stored in file.stored if stored.path not in missing], hashlib.sha256()
    for stored in present:
        file_copy.check_hash(bundle, stored, bar, *([file_hash] if file.parts else []))
    if file.parts and len(present) == len(file.parts):
        file_copy.check_joined(bundle, file, file_hash)
    return len(present)


def _report(manifest: Manifest, present: int, missing: set[str]) -> None:
    target = manifest.target
    print(f"Cappella {manifest.cappella} for {target.platform}, Python {target.python}; {human(manifest.size_bytes)}")
    if missing:
        print(f"{present} files match the manifest; {len(missing)} are missing, so the bundle is incomplete")
    else:
        print(f"all {present} files match the manifest")
