"""The command line: each command parses its arguments, calls one function and turns errors into one line."""

import asyncio
import json
from pathlib import Path
from typing import Annotated

import typer

from cappella.cli import ask as terminal
from cappella.cli import audit, bench, documents, keys, models
from cappella.cli.ask import ServerKey, Url
from cappella.cli.batch import batch
from cappella.cli.check import check
from cappella.cli.client.address import DEFAULT_URL
from cappella.cli.completion import CONFIG, HERE, SUFFIXES, config_files
from cappella.cli.docs import docs
from cappella.cli.errors import EXIT_CODES, App, one_line_errors
from cappella.cli.eval import evaluate
from cappella.cli.init import init
from cappella.cli.judge import judge
from cappella.cli.logs import logs
from cappella.cli.mcp import mcp
from cappella.errors import ConfigError
from cappella.version import __version__

app = App(
    pretty_exceptions_enable=False,
    epilog=EXIT_CODES,
    help="A panel of local models on vLLM, a judge that writes one answer from theirs, one OpenAI-compatible endpoint.",
)

app.add_typer(keys.app, name="keys")
app.add_typer(audit.app, name="audit")
app.add_typer(bench.app, name="bench")
app.add_typer(models.app, name="models")
app.add_typer(documents.app, name="documents")

ConfigPath = Annotated[Path, CONFIG]


@app.command()
def serve(
    config: Annotated[
        list[str] | None,
        typer.Argument(
            help="The YAML of a deployment (default: cappella.yaml), or two or more models: hub ids or folders.",
            autocompletion=config_files,
        ),
    ] = None,
    host: Annotated[str | None, typer.Option(help="Listen on this address instead of server.host.")] = None,
    port: Annotated[
        int | None, typer.Option(help="Listen on this port instead of server.port; 0: any free one.")
    ] = None,
    log_dir: Annotated[Path | None, typer.Option(help="Folder of the engines' logs.")] = None,
    batch_folder: Annotated[
        Path | None, typer.Option(help="Take batches, and keep them in this folder instead of server.batch.folder.")
    ] = None,
) -> None:
    """Start every engine and serve the ensembles until Ctrl-C or SIGTERM.

    The gateway answers at once; /ready turns 200 when every ensemble has its quorum and its judge.
    """
    from cappella.cli.init import file_of
    from cappella.config import load
    from cappella.gateway.serve import serve as serve_config

    with one_line_errors():
        path = file_of(config) if config and len(config) > 1 else Path(config[0]) if config else HERE
        batch = {"folder": batch_folder.absolute()} if batch_folder else None
        code = serve_config(lambda: load.with_server(load.load(path), host=host, port=port, batch=batch), log_dir)
    raise typer.Exit(code)


@app.command()
def reload(url: Url = DEFAULT_URL, key: ServerKey = None) -> None:
    """Reload the config of a running server: new engines start first, then requests go to them. No run is lost.

    If the new config is invalid, nothing changes and the exit code is 2.
    """
    from cappella.cli.client.http import Server
    from cappella.cli.client.reload import reload as reload_server

    with one_line_errors():
        asyncio.run(reload_server(Server(url, key)))


for command in (terminal.ask, terminal.chat, terminal.top, judge, batch, mcp, init, check, docs, logs):
    app.command()(command)
app.command("eval")(evaluate)


@app.command()
def plan(
    config: ConfigPath = HERE,
    gpus: Annotated[
        str | None, typer.Option(help="Plan for these GPUs instead of this machine: H100, 2x24GiB, or 24GiB,2xL40S.")
    ] = None,
    nodes: Annotated[
        str | None, typer.Option(help="Plan for a cluster of these nodes instead: a:8x80GiB,b:2x24GiB.")
    ] = None,
    cluster: Annotated[
        bool, typer.Option("--cluster", help="Plan for the nodes of the Ray cluster that this machine belongs to.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the plan as JSON, sizes in bytes.")] = False,
) -> None:
    """Show what fits where before anything loads: weights, KV cache and GPUs of each model. Starts nothing.

    If the models do not fit, the exit code is 2 and the error names the cheapest changes that would help.
    """
    from cappella.cli import planned
    from cappella.config import load
    from cappella.placement import report

    with one_line_errors():
        read = load.load(config)
        report.show(read, planned.machine_of(read, gpus, nodes, cluster), as_json)


@app.command()
def schema() -> None:
    """Print the JSON schema of configs, with which editors complete and check them."""
    from cappella.config import Config

    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Cappella config"}
    print(json.dumps({**Config.model_json_schema(), **head}, indent=2))


@app.command()
def pull(
    target: Annotated[
        str, typer.Argument(help="A model, such as Qwen/Qwen3-8B, or a config.", autocompletion=config_files)
    ],
    revision: Annotated[
        str | None, typer.Option(help="Branch, tag or commit of a model. (default: the newest)")
    ] = None,
    to: Annotated[
        Path | None, typer.Option(help="Folder for a model. (default: one in CAPPELLA_MODELS, where configs find it)")
    ] = None,
    unpinned: Annotated[
        bool, typer.Option("--unpinned", help="Fetch the newest revision where a card pins none.")
    ] = False,
) -> None:
    """Download a model, or what a config names, from the Hugging Face hub. A config finds it by the same name.

    Downloads only what an engine reads (safetensors, no pickles), checks every hash, and resumes where an earlier call stopped.
    """
    from cappella.bundle import pull as command

    with one_line_errors():
        if not target.endswith(SUFFIXES) and not Path(target).is_file():
            command.pull_model(target, revision, to)
        elif revision or to:
            raise ConfigError(
                "--revision, --to", "are for one model, and this is a config", "Write models.NAME.weights"
            )
        else:
            command.pull(Path(target), unpinned)


@app.command()
def card(
    model: Annotated[str, typer.Argument(help="A folder, or a model such as Qwen/Qwen3-8B: here, or else on the hub.")],
    out: Annotated[Path | None, typer.Option(help="Write the card to this file instead of printing it.")] = None,
) -> None:
    """Make a model card: what `plan` needs before the weights are there, and defaults for the config.

    Set its tool_parser and reasoning_parser by hand. A config names it by `card: FILE`.
    """
    from cappella.bundle import file_copy, manifest, own_card

    with one_line_errors():
        text = own_card.text(model)
        if out is None:
            print(text, end="")
            return
        with file_copy.disk_errors(out, "Choose another file"):
            manifest.write_atomically(out, text.encode())


@app.command()
def bundle(
    config: ConfigPath,
    out: Annotated[Path, typer.Argument(help="Folder of the bundle: empty, or of an earlier call.")],
    wheels: Annotated[Path | None, typer.Option(help="Folder with the wheels.")] = None,
    lock: Annotated[
        str | None, typer.Option(help="Or download the wheels of a pinned list: cpu, gpu, or a file of your own.")
    ] = None,
    with_dependencies: Annotated[
        bool,
        typer.Option("--with-dependencies", help="Also download dependencies that the list does not name (gpu)."),
    ] = False,
    platform: Annotated[
        str | None, typer.Option(help="Platform of the target machine: linux_x86_64. (default: this one's)")
    ] = None,
    python: Annotated[
        str | None, typer.Option(help="Python of the target machine: 3.11. (default: this one's)")
    ] = None,
    glibc: Annotated[str | None, typer.Option(help="glibc of the target machine: 2.28. (default: this one's)")] = None,
    part_bytes: Annotated[str | None, typer.Option(help="Split larger files into parts of this size: 4GB.")] = None,
    sign: Annotated[Path | None, typer.Option(help="Sign with this private key (PEM, Ed25519).")] = None,
) -> None:
    """Make one folder with all that a machine without a network needs: weights, wheels, config, licences, SBOM, hashes.

    A second call keeps correct files. The manifest is written last.
    """
    from cappella.bundle import build

    with one_line_errors():
        target = build.target_machine(platform, python, glibc)
        size_bytes = build.parsed_bytes(part_bytes) if part_bytes else None
        build.make(config, out, build.BundleOptions(wheels, lock, with_dependencies, target, size_bytes, sign))


@app.command()
def lock(
    kind: Annotated[str | None, typer.Argument(help="cpu, gpu or base. (default: what this machine is)")] = None,
) -> None:
    """Print the path of the pinned packages of this release: `pip install --no-deps -r "$(cappella lock cpu)"`."""
    from cappella.bundle import locks

    with one_line_errors():
        print(locks.path_of(kind or locks.of_this_machine()))


BundlePath = Annotated[Path, typer.Argument(help="Folder of the bundle.")]
PublicKey = Annotated[Path | None, typer.Option(help="Public key of the bundle's maker (PEM, Ed25519).")]


@app.command()
def verify(
    bundle: BundlePath,
    key: PublicKey = None,
    partial: Annotated[bool, typer.Option("--partial", help="Accept missing files and check the others.")] = False,
) -> None:
    """Check every byte of a bundle against its manifest. The error names the first bad, missing or extra file."""
    from cappella.bundle.verify import verify as verify_bundle

    with one_line_errors():
        verify_bundle(bundle, key, partial)


@app.command()
def install(
    bundle: BundlePath,
    target: Annotated[Path, typer.Argument(help="Folder to install into: empty, or of an earlier call.")],
    key: PublicKey = None,
) -> None:
    """Install a bundle without a network: weights, config and a venv of its wheels. Checks every hash."""
    from cappella.bundle.install import install as install_bundle

    with one_line_errors():
        install_bundle(bundle, target, key)


@app.command(
    epilog="Exit codes: 0 ok, 1 no answer from the stack, 2 a start would fail, 3 something tried to reach, or is open to, a network."
)
def doctor(
    config: ConfigPath,
    sealed: Annotated[
        bool,
        typer.Option("--sealed", help="Run the whole stack without a network and list every attempt to reach one."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """Check whether this machine can serve a config. With --sealed, start it where only loopback exists and ask it questions.

    With --sealed, any attempt to reach a network, and any port open to one, is listed.
    """
    from cappella.cli import doctor as command

    with one_line_errors():
        code = command.prove(config, as_json) if sealed else command.examine(config, as_json)
    raise typer.Exit(code)


@app.callback(invoke_without_command=True)
def main(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        print(f"cappella {__version__}")
        raise typer.Exit
