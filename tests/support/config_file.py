"""A config in a folder of its own."""

from pathlib import Path


def write_config(folder: Path, text: str) -> Path:
    """Writes the config of a test; returns its path."""
    path = folder / "c.yaml"
    path.write_text(text)
    return path
