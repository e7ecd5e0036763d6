"""`cappella verify`: a bundle is what its manifest says, no more, no less and no other."""

import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from cappella.bundle import file_copy, signing
from cappella.bundle.bar import Bar, human
from cappella.bundle.manifest import NAME, SIGNATURE_NAME, File, Manifest, read
from cappella.errors import ConfigError

AGAIN = "Copy it once more"


def verify(bundle: Path, key: Path | None = None, partial: bool = False) -> Manifest:
    """Read every byte and compare. Raises ConfigError that names a file; with `partial`, a missing one is no error."""
    with file_copy.one_line(bundle, AGAIN):
        manifest = opened(bundle, key)
        missing = _check_names(bundle, manifest, partial)
        with Bar("verifying", sum(each.size_bytes for each in manifest.stored if each.path not in missing)) as bar:
            present = sum(_check_hashes(bundle, file, missing, bar) for file in manifest.files)
    _report(manifest, present, missing)
    return manifest


def opened(bundle: Path, key: Path | None) -> Manifest:
    """The manifest, its signature checked if there is a key; says so if there is none. Raises ConfigError."""
    manifest, text = read(bundle)
    signature = bundle / SIGNATURE_NAME
    if key:
        signing.check(text, signature, key)
        print(f"the signature is that of {key}")
    elif signature.exists():
        print("signed, but not checked: name the maker's public key with --key")
    return manifest


def check_whole(bundle: Path, manifest: Manifest) -> None:
    """Nothing is missing, nothing extra, and every size is right; no byte is read. Raises ConfigError."""
    _check_names(bundle, manifest, partial=False)


def _check_names(bundle: Path, manifest: Manifest, partial: bool) -> set[str]:
    """The paths that are missing. Raises ConfigError for what is extra, a link, or of another size."""
    sizes = dict(_lying(bundle))
    known = {stored.path: stored for stored in manifest.stored}
    for path in sorted(set(sizes) - set(known) - {NAME, SIGNATURE_NAME}):
        raise ConfigError(str(bundle / path), "is not in the manifest", "Take it away, and ask who put it there")
    missing = {path for path in known if path not in sizes}
    if missing and not partial:
        path = next(path for path in known if path in missing)
        raise ConfigError(str(bundle / path), f"is missing ({len(missing)} in all)", "Copy the rest, or use --partial")
    for path, stored in known.items():
        if path in sizes and sizes[path] != stored.size_bytes:
            problem = f"has {sizes[path]} bytes, and the manifest says {stored.size_bytes}"
            raise ConfigError(str(bundle / path), problem, AGAIN)
    return missing


def _lying(bundle: Path) -> Iterator[tuple[str, int]]:
    """Every file under the bundle with its size. Raises ConfigError for a link, or what is neither file nor folder."""
    for folder, folders, files in os.walk(bundle, onerror=_raise):
        for name in sorted(folders + files):
            path = Path(folder, name)
            found = path.lstat()
            if stat.S_ISREG(found.st_mode):
                yield path.relative_to(bundle).as_posix(), found.st_size
            elif not stat.S_ISDIR(found.st_mode):
                kind = "a symbolic link" if path.is_symlink() else "neither a file nor a folder"
                raise ConfigError(
                    str(path), f"is {kind}, and a bundle has none", "Take it away, and copy the file itself"
                )


def _raise(error: OSError) -> None:
    raise error


def _check_hashes(bundle: Path, file: File, missing: set[str], bar: Bar) -> int:
    """How many of a file's parts are there, and right. Raises ConfigError for one that is not."""
    present, whole = [stored for stored in file.stored if stored.path not in missing], hashlib.sha256()
    for stored in present:
        file_copy.check_hash(bundle, stored, bar, *([whole] if file.parts else []))
    if file.parts and len(present) == len(file.parts):
        file_copy.check_whole(bundle, file, whole)
    return len(present)


def _report(manifest: Manifest, present: int, missing: set[str]) -> None:
    target = manifest.target
    print(f"Cappella {manifest.cappella} for {target.platform}, Python {target.python}; {human(manifest.size_bytes)}")
    if missing:
        print(
            f"{present} files are as the manifest says; {len(missing)} are still missing: this is no whole bundle yet"
        )
    else:
        print(f"all {present} files are as the manifest says")
