"""One real deployment, the demo ensemble, started once for every test that needs it."""

from collections.abc import Iterator

import pytest

from deployment import ROOT, Deployment, start, stop


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    deployment = start(ROOT / "model_configs" / "demo.yaml", tmp_path_factory.mktemp("logs"))
    yield deployment
    if deployment.process.poll() is None:
        stop(deployment)
