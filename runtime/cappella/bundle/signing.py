"""Ed25519 signatures of a manifest, with OpenSSL's PEM keys.

openssl genpkey -algorithm ed25519 -out key.pem; openssl pkey -in key.pem -pubout -out key.pub
"""

from pathlib import Path
from typing import TYPE_CHECKING

from cappella.bundle.manifest import write_atomically
from cappella.errors import ConfigError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

MAKE = "Make one with: openssl genpkey -algorithm ed25519 -out key.pem; openssl pkey -in key.pem -pubout -out key.pub"
BY_HAND = "openssl pkeyutl -verify -pubin -inkey KEY -rawin -in manifest.json -sigfile manifest.json.sig"


def private_key(path: Path) -> "Ed25519PrivateKey":
    """The key in a PEM file. Raises ConfigError unless it is an Ed25519 private key without a pass phrase."""
    _require_cryptography(path, "pip install 'cappella[sign]', or omit --sign")
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ConfigError(str(path), f"cannot be read as a private key ({_first_line(error)})", MAKE) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError(str(path), "is not an Ed25519 key", MAKE)
    return key


def sign(text: bytes, path: Path, key: "Ed25519PrivateKey") -> None:
    """Write the signature of these bytes; it has 64 bytes."""
    write_atomically(path, key.sign(text))


def check(text: bytes, signature: Path, key: Path) -> None:
    """Raises ConfigError unless the owner of the key signed exactly these bytes."""
    _require_cryptography(key, f"Check by hand: {BY_HAND}; then omit --key")
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        public = load_pem_public_key(key.read_bytes())
    except (OSError, ValueError, UnsupportedAlgorithm) as error:
        raise ConfigError(str(key), f"cannot be read as a public key ({_first_line(error)})", MAKE) from error
    if not isinstance(public, Ed25519PublicKey):
        raise ConfigError(str(key), "is not an Ed25519 key", MAKE)
    if signature.is_symlink() or not signature.is_file():
        raise ConfigError(
            str(signature), "is missing: the bundle is not signed", "Omit --key, or have the bundle signed"
        )
    try:
        public.verify(signature.read_bytes(), text)
    except InvalidSignature as error:
        problem = f"is not the signature of this manifest by the owner of {key}"
        raise ConfigError(str(signature), problem, "Do not install this bundle; ask its maker") from error


def _require_cryptography(place: Path, hint: str) -> None:
    try:
        import cryptography.hazmat.primitives  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            str(place), "signatures need the package cryptography, which is not installed", hint
        ) from error


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
