"""The far side: a bundle becomes weights, a config and an environment of its own, without a network."""

import re
import shutil
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from cappella.bundle import file_copy
from cappella.bundle.install import install, this_machine
from cappella.config import load
from cappella.errors import ConfigError
from cappella.version import __version__
from support.command_line import cappella
from support.real_deployment import ROOT
from support.small_bundle import bundled, rewrite, write_wheel

DEMO = ROOT / "model_configs" / "demo.yaml"


def run(*command: str | Path) -> str:
    done = subprocess.run([str(each) for each in command], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def without_network() -> list[str]:
    """What runs a command where there is no network at all, if this machine lets us."""
    command = ["unshare", "-rn"]
    if shutil.which("unshare") is None:
        return []
    done = subprocess.run([*command, "true"], capture_output=True, check=False)
    return command if done.returncode == 0 else []


def test_the_demo_goes_over_in_parts_and_is_installed_by_a_bare_python_with_no_network(tmp_path: Path) -> None:
    out, target = tmp_path / "out", tmp_path / "target"
    write_wheel(tmp_path / "wheels", "tune")
    arguments = ("bundle", DEMO, out, "--wheels", tmp_path / "wheels", "--part-bytes", "1MiB")
    made = cappella(*arguments, XDG_CACHE_HOME=str(tmp_path / "cache"))
    assert made.returncode == 0, made.stderr
    assert "no known licence: soprano" in made.stdout
    assert (out / "weights" / "alto" / "model.safetensors.part0002").is_file()
    (own,) = (out / "wheels").glob("cappella-*.whl")
    # -I and -S: not one package of this machine can be seen.
    code = (
        f"import sys, runpy; sys.path.insert(0, {str(own)!r}); runpy.run_module('cappella.bundle', run_name='__main__')"
    )
    bare = [*without_network(), sys.executable, "-I", "-S", "-c", code]
    assert "match the manifest" in run(*bare, "verify", out)
    said = run(*bare, "install", out, target)
    assert f"{target}/venv/bin/cappella serve {target}/config/config.yaml" in said
    ours = "import cappella, tune; print(cappella.__version__, tune.version)"
    assert run(target / "venv" / "bin" / "python", "-I", "-c", ours).split() == [__version__, "1.0"]
    assert installed_is_what_was_there(target)
    again = run(*bare, "install", out, target)
    assert "making" not in again


def installed_is_what_was_there(target: Path) -> bool:
    written, served = load.load(DEMO), load.load(target / "config" / "config.yaml")
    files = [(model.weights / "model.safetensors", served.local[name].weights) for name, model in written.local.items()]
    assert all((folder / path.name).read_bytes() == path.read_bytes() for path, folder in files)
    return served.ensembles == written.ensembles


@dataclass(frozen=True)
class Installed:
    """A bundle that was installed on the second try, on a machine whose pip is told to do something else."""

    bundle: Path
    target: Path
    problem: str
    after_first_try: frozenset[str]
    kept_since_ns: int
    asked_an_index: bool


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """Made once: an environment takes 9 s of CPU time."""
    folder = tmp_path_factory.mktemp("installed")
    bundle, target = bundled(folder), folder / "target"
    tokenizer = bundle / "weights" / "ann" / "tokenizer.json"
    right = tokenizer.read_bytes()
    with socket.create_server(("127.0.0.1", 0)) as index, pytest.MonkeyPatch.context() as patch:
        index.setblocking(False)
        patch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{index.getsockname()[1]}/simple")
        patch.setenv("PIP_NO_INDEX", "0")
        patch.setenv("PIP_REQUIREMENT", str(folder / "nowhere"))
        tokenizer.write_bytes(b"X" * len(right))
        with pytest.raises(ConfigError) as stopped:
            install(bundle, target)
        after_first_try = frozenset(str(path.relative_to(target)) for path in target.rglob("*"))
        kept_since_ns = weights_of(target).stat().st_mtime_ns
        tokenizer.write_bytes(right)
        install(bundle, target)
        asked_an_index = was_asked(index)
    return Installed(bundle, target, str(stopped.value), after_first_try, kept_since_ns, asked_an_index)


def weights_of(target: Path) -> Path:
    return target / "weights" / "ann" / "model.safetensors"


def was_asked(server: socket.socket) -> bool:
    try:
        server.accept()[0].close()
    except BlockingIOError:
        return False
    return True


def test_no_setting_of_pip_sends_it_to_an_index(installed: Installed) -> None:
    assert not installed.asked_an_index
    assert list(installed.target.rglob("tune.py"))


def test_an_install_that_stopped_goes_on(installed: Installed) -> None:
    assert re.search(r"tokenizer\.json: its SHA-256", installed.problem)
    assert "weights/ann/tokenizer.json" not in installed.after_first_try
    assert "venv" not in installed.after_first_try
    assert (installed.target / "weights" / "ann" / "tokenizer.json").is_file()
    assert weights_of(installed.target).stat().st_mtime_ns == installed.kept_since_ns
    assert not list(installed.target.rglob("*.partial"))


def test_a_wheel_that_was_changed_is_not_installed(tmp_path: Path) -> None:
    bundle, target = bundled(tmp_path), tmp_path / "target"
    wheel = bundle / "wheels" / "tune-1.0-py3-none-any.whl"
    wheel.write_bytes(wheel.read_bytes().replace(b"version = '1.0'", b"version = '6.6'"))
    with pytest.raises(ConfigError, match=r"tune-1\.0-py3-none-any\.whl: its SHA-256"):
        install(bundle, target)
    assert not list(target.rglob("tune.py"))


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("platform", "linux_aarch64", r"linux_aarch64.*linux_x86_64"),
        ("python", "3.99", r"Python 3\.99.*Python 3\.\d+"),
        ("glibc", "2.99", r"glibc 2\.99"),
    ],
)
def test_a_bundle_for_another_machine_is_refused_by_name(tmp_path: Path, field: str, value: str, says: str) -> None:
    bundle = bundled(tmp_path)
    rewrite(bundle, lambda raw: raw["target"].update({field: value}))
    if this_machine().platform != "linux_x86_64":
        pytest.skip("the names are those of x86")
    with pytest.raises(ConfigError, match=says):
        install(bundle, tmp_path / "target")
    assert not (tmp_path / "target").exists()


def test_a_folder_that_holds_something_else_is_refused(tmp_path: Path) -> None:
    bundle, target = bundled(tmp_path), tmp_path / "target"
    target.mkdir()
    (target / "diary.txt").write_text("mine")
    with pytest.raises(ConfigError, match="is not empty"):
        install(bundle, target)
    (target / "diary.txt").unlink()
    (target / "manifest.json").write_text("of another")
    with pytest.raises(ConfigError, match="another bundle"):
        install(bundle, target)


def test_what_somebody_changed_after_an_install_is_not_overwritten(installed: Installed) -> None:
    config = installed.target / "config" / "config.yaml"
    written = config.read_text()
    config.write_text(written + "# mine\n")
    with pytest.raises(ConfigError, match=r"config\.yaml: was changed"):
        install(installed.bundle, installed.target)
    assert config.read_text().endswith("# mine\n")
    config.write_text(written)


def test_what_has_no_room_is_refused_before_it_begins(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"needs .* TB.* free"):
        file_copy.require_space(tmp_path / "not" / "there", 1 << 60)
