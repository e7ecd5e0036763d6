"""Settings of the package huggingface_hub, which it reads as it is imported."""

import os


def prepare_import() -> None:
    """Turn its telemetry off, and its bars, which are for one file: those of `cappella pull` are for all files."""
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
