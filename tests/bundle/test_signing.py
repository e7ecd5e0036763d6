"""A signature holds for one manifest and one key; OpenSSL makes the keys, and agrees."""

import subprocess
from pathlib import Path

import pytest

from cappella.bundle.verify import verify
from cappella.errors import ConfigError
from support.small_bundle import bundled, rewrite

pytest.importorskip("cryptography")


def keys(folder: Path, name: str, algorithm: str = "ed25519") -> tuple[Path, Path]:
    private, public = folder / f"{name}.pem", folder / f"{name}.pub"
    subprocess.run(["openssl", "genpkey", "-algorithm", algorithm, "-out", private], check=True, capture_output=True)
    subprocess.run(["openssl", "pkey", "-in", private, "-pubout", "-out", public], check=True, capture_output=True)
    return private, public


def test_a_signed_bundle_is_that_of_its_maker_and_of_nobody_else(tmp_path: Path) -> None:
    (private, public), (_, other) = keys(tmp_path, "maker"), keys(tmp_path, "other")
    bundle = bundled(tmp_path, key=private)
    verify(bundle, public)
    with pytest.raises(ConfigError, match=r"is not the signature of this manifest by the owner of .*other\.pub"):
        verify(bundle, other)
    by_hand = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", str(public), "-rawin"]
    by_hand += ["-in", str(bundle / "manifest.json"), "-sigfile", str(bundle / "manifest.json.sig")]
    assert subprocess.run(by_hand, capture_output=True, check=False).returncode == 0


def test_a_manifest_that_was_changed_after_signing_is_refused(tmp_path: Path) -> None:
    private, public = keys(tmp_path, "maker")
    bundle = bundled(tmp_path, key=private)
    rewrite(bundle, lambda raw: raw["target"].update(python="3.99"))
    verify(bundle)
    with pytest.raises(ConfigError, match="is not the signature of this manifest"):
        verify(bundle, public)


def test_with_a_key_an_unsigned_bundle_is_refused_and_without_one_a_signature_is_said_to_be_unchecked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    private, public = keys(tmp_path, "maker")
    bundle = bundled(tmp_path, key=private)
    verify(bundle)
    assert "signature not checked" in capsys.readouterr().out
    bundled(tmp_path)
    with pytest.raises(ConfigError, match="the bundle is not signed"):
        verify(bundle, public)


def test_what_is_no_such_key_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    private, public = keys(tmp_path, "maker")
    wrong, _ = keys(tmp_path, "wrong", "x25519")
    for key in (public, wrong, tmp_path / "nowhere"):
        with pytest.raises(ConfigError, match=r"private key|Ed25519"):
            bundled(tmp_path, key=key)
    assert not (tmp_path / "out").exists()
    bundle = bundled(tmp_path, key=private)
    for key in (private, tmp_path / "nowhere"):
        with pytest.raises(ConfigError, match="cannot be read as a public key"):
            verify(bundle, key)
