"""The command line: parse arguments, call one function, turn errors into one line and an exit code."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cappella.cli import ask as terminal
from cappella.cli import audit, keys
from cappella.cli.ask import ServerKey, Url
from cappella.cli.completion import DEFAULT_URL, config_files
from cappella.cli.errors import one_line_errors
from cappella.version import __version__

if TYPE_CHECKING:
    from cappella.config import Config

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="A panel of local models on vLLM, a judge that writes one answer from theirs, one OpenAI-compatible endpoint.",
)

app.add_typer(keys.app, name="keys")
app.add_typer(audit.app, name="audit")

ConfigPath = Annotated[
    Path,
    typer.Argument(help="The YAML of a deployment, such as model_configs/demo.yaml.", autocompletion=config_files),
]


@app.command()
def serve(
    config: ConfigPath,
    port: Annotated[int | None, typer.Option(help="Listen here instead of the config's server.port.")] = None,
    log_dir: Annotated[Path | None, typer.Option(help="Where each engine's log goes.")] = None,
) -> None:
    """Start every engine and serve the ensembles until Ctrl-C or SIGTERM.

    The gateway answers at once; /ready turns 200 when every ensemble has its quorum and its judge.
    """
    from cappella.config import load
    from cappella.gateway.serve import serve as serve_config

    def read() -> "Config":
        loaded = load.load(config)
        if port is None:
            return loaded
        return loaded.model_copy(update={"server": loaded.server.model_copy(update={"port": port})})

    with one_line_errors():
        code = serve_config(read, log_dir)
    raise typer.Exit(code)


@app.command()
def reload(url: Url = DEFAULT_URL, key: ServerKey = None) -> None:
    """Have a running server read its config anew: new engines come up first, then it changes over, and no run is lost.

    Exit code 2 if the new config is refused: then all is as before.
    """
    from cappella.cli.client.http import Server
    from cappella.cli.client.reload import reload as reload_server

    with one_line_errors():
        asyncio.run(reload_server(Server(url.rstrip("/"), key)))


for command in (terminal.ask, terminal.chat, terminal.top):
    app.command()(command)


@app.command()
def check(config: ConfigPath) -> None:
    """Check a config and the weights that it names; starts nothing."""
    from cappella.config import load
    from cappella.placement import folder

    with one_line_errors():
        loaded = load.load(config)
        for name, model in loaded.local.items():
            folder.inspect(name, model.weights)
            print(f"{name}: {model.weights}")
        for name, remote in loaded.remote.items():
            print(f"{name}: {remote.model or name} at {remote.url}")
        for name, ensemble in loaded.ensembles.items():
            panel = ", ".join(seat.name for seat in ensemble.seats)
            quorum = ensemble.quorum_of(sum(seat.samples for seat in ensemble.seats))
            print(f"cappella/{name}: {panel} (quorum {quorum}), judge {ensemble.judge.model}")


@app.command()
def plan(
    config: ConfigPath,
    gpus: Annotated[str | None, typer.Option(help="Plan for these instead of this machine: 2x24GiB.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the plan as JSON, sizes in bytes.")] = False,
) -> None:
    """Say what fits where before anything loads: each model's weights, KV cache and GPUs; starts nothing.

    Exit code 2 if the models do not fit, with the cheapest changes that would make them.
    """
    from cappella.config import load
    from cappella.placement import machine, report

    with one_line_errors():
        report.show(load.load(config), machine.described(gpus) if gpus else machine.own(), as_json)


@app.command()
def bench(
    config: ConfigPath,
    ensemble: Annotated[str, typer.Option(help="The ensemble to measure.")] = "default",
    against: Annotated[str, typer.Option(help="Also: single, naive, single-plain, naive-plain (commas).")] = "",
    url: Annotated[str | None, typer.Option(help="A server of this config that runs; default: one is started.")] = None,
    concurrency: Annotated[str, typer.Option(help="Runs that are always under way (commas).")] = "1,4,16",
    rate: Annotated[str, typer.Option(help="Instead: runs that come per second, at random (commas).")] = "",
    panel: Annotated[str, typer.Option(help="Seats, the members in turn (commas); default: the config's.")] = "",
    answer_tokens: Annotated[str, typer.Option(help="Tokens of an answer (commas); default: as they like.")] = "64",
    prompt_words: Annotated[int, typer.Option(help="Words of a prompt, drawn at random.")] = 60,
    prompts: Annotated[Path | None, typer.Option(help="Instead: a file with a prompt on each line.")] = None,
    runs: Annotated[int, typer.Option(help="Runs of each system in each round.")] = 16,
    rounds: Annotated[int, typer.Option(help="Rounds; in each, every system has its turn.")] = 3,
    fusion: Annotated[str, typer.Option(help="Fields of every run: analysis=off;early_exit=equal.")] = "",
    vary: Annotated[str, typer.Option(help="Fields to compare: early_prefill=true/false.")] = "",
    optillm_python: Annotated[Path | None, typer.Option(help="A Python that has optillm, to compare with.")] = None,
    out: Annotated[Path | None, typer.Option(help="A folder for bench.json and bench.svg.")] = None,
) -> None:
    """Start the engines of a config and measure its ensemble: throughput, latency, stages, overhead, ratio to the floor.

    Everything that is compared has its turn in every round, so that a slow minute of the machine hits all alike.
    """
    from cappella.cli.bench import bench as run_bench

    options: dict[str, str | None] = {
        "ensemble": ensemble,
        "against": against,
        "url": url and url.rstrip("/"),
        "concurrency": concurrency,
        "rate": rate,
        "panel": panel,
        "answer-tokens": answer_tokens,
        "prompt-words": str(prompt_words),
        "prompts": str(prompts) if prompts else None,
        "optillm-python": str(optillm_python) if optillm_python else None,
        "fusion": fusion,
        "vary": vary,
    }
    with one_line_errors():
        run_bench(config, out, options, runs, rounds)


@app.command()
def pull(
    config: ConfigPath,
    unpinned: Annotated[
        bool, typer.Option("--unpinned", help="Take the newest where a card pins no revision.")
    ] = False,
) -> None:
    """Fetch the weights that a config's cards name from Hugging Face's hub, on a machine that has a network.

    Only what an engine reads, safetensors only, every file's hash checked; called again it goes on where it stopped.
    """
    from cappella.bundle.pull import pull as pull_weights

    with one_line_errors():
        pull_weights(config, unpinned)


@app.command()
def bundle(
    config: ConfigPath,
    out: Annotated[Path, typer.Argument(help="The folder to make: empty, or begun by an earlier call.")],
    wheels: Annotated[Path | None, typer.Option(help="A folder of wheels that are gathered already.")] = None,
    lock: Annotated[Path | None, typer.Option(help="Or a pinned list to download: scripts/locks/cpu.txt.")] = None,
    with_dependencies: Annotated[
        bool, typer.Option("--with-dependencies", help="Download what the list's packages ask for, too (gpu.txt).")
    ] = False,
    platform: Annotated[str | None, typer.Option(help="The far side: linux_x86_64; default: as here.")] = None,
    python: Annotated[str | None, typer.Option(help="Its Python: 3.11; default: as here.")] = None,
    glibc: Annotated[str | None, typer.Option(help="Its glibc: 2.28; default: as here.")] = None,
    part_bytes: Annotated[str | None, typer.Option(help="Cut larger files into parts of so much: 4GB.")] = None,
    sign: Annotated[Path | None, typer.Option(help="Sign with this private key (PEM, Ed25519).")] = None,
) -> None:
    """Make one folder with all that a machine without a network needs: weights, wheels, config, licences, SBOM, hashes.

    Called again it keeps what is there and right; the manifest comes last.
    """
    from cappella.bundle import build

    with one_line_errors():
        target = build.far_side(platform, python, glibc)
        size_bytes = build.parsed_bytes(part_bytes) if part_bytes else None
        build.make(config, out, build.BundleOptions(wheels, lock, with_dependencies, target, size_bytes, sign))


BundlePath = Annotated[Path, typer.Argument(help="The folder of a bundle.")]
PublicKey = Annotated[Path | None, typer.Option(help="The maker's public key (PEM, Ed25519).")]


@app.command()
def verify(
    bundle: BundlePath,
    key: PublicKey = None,
    partial: Annotated[bool, typer.Option("--partial", help="Some files are still to come; check the others.")] = False,
) -> None:
    """Check every byte of a bundle against its manifest; exit code 2 names the first file that is bad, missing or extra."""
    from cappella.bundle.verify import verify as verify_bundle

    with one_line_errors():
        verify_bundle(bundle, key, partial)


@app.command()
def install(
    bundle: BundlePath,
    target: Annotated[Path, typer.Argument(help="The folder to install into: empty, or begun by an earlier call.")],
    key: PublicKey = None,
) -> None:
    """Install a bundle with no network: weights, config and a venv of its wheels; every hash is checked on the way."""
    from cappella.bundle.install import install as install_bundle

    with one_line_errors():
        install_bundle(bundle, target, key)


@app.command()
def doctor(
    config: ConfigPath,
    sealed: Annotated[bool, typer.Option("--sealed", help="Run it all with no network and list what tries.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was found as JSON.")] = False,
) -> None:
    """Check this machine for a config; with --sealed start all of it where only loopback exists, and ask it questions.

    Exit code 2 if a start would fail; with --sealed 3 if anything tried to reach further, or could be reached.
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
