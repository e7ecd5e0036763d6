"""`cappella doctor`: its findings as tables or JSON."""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from cappella.config import load
from cappella.doctor.trial import GUARD_ALONE
from cappella.errors import CappellaError

if TYPE_CHECKING:
    from cappella.doctor.checks import Check

EXIT_FAILED = 2
EXIT_NO_ANSWER = 1
EXIT_REACHED_FURTHER = 3
COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}
WEAKER = (
    "this kernel does not allow a network namespace ({reason}): only the guard watched, which sees what Python's socket module"
    " does, but nothing that native code does. Run it as root, or where unprivileged user namespaces are allowed."
)

console = Console(highlight=False, soft_wrap=True)


def examine(config: Path, as_json: bool) -> int:
    """Print whether this machine can serve a config; EXIT_FAILED if a start would fail."""
    # Imported here: `prove` runs the gateway in another process, and its libraries take a second.
    from cappella.doctor.checks import checks

    results = list(checks(load.load(config)))
    if as_json:
        print(json.dumps([asdict(check) for check in results], indent=2))
    else:
        console.print(_table(results), soft_wrap=False)
    return EXIT_FAILED if any(check.level == "fail" for check in results) else 0


def prove(config: Path, as_json: bool) -> int:
    """Run the stack sealed and print every attempt to reach a network: EXIT_REACHED_FURTHER if there was one."""
    load.load(config)
    report = _trial(config)
    reason = report.pop("impossible", None)
    if reason:
        report = _trial(config, GUARD_ALONE)
    report = {"namespace": reason is None, "reason": reason, **report}
    if as_json:
        print(json.dumps(report, indent=2))
    else:
        _show(report)
    if report["attempts"] or report["listening"] or report["unseen"]:
        return EXIT_REACHED_FURTHER
    return EXIT_NO_ANSWER if _unproven(report) else 0


def _trial(config: Path, *arguments: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "cappella.doctor.trial", str(config), *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=False)
    try:
        return dict(json.loads(done.stdout))
    except ValueError as error:
        raise CappellaError(f"The trial ended with exit code {done.returncode} and no report.") from error


def _unproven(report: Mapping[str, Any]) -> bool:
    """Whether the stack did not start, or a question got no answer."""
    return bool(report["problem"]) or any(each["error"] for each in report["asked"])


def _table(results: Sequence["Check"]) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    for check in results:
        hint = Text(f"\n{check.hint}", "dim") if check.hint else Text()
        table.add_row(Text(check.level, COLOURS[check.level]), Text(check.name), Text(check.found) + hint)
    return table


def _show(report: Mapping[str, Any]) -> None:
    where = "a separate one with loopback only; every packet is watched"
    console.print(f"Network: {where if report['namespace'] else WEAKER.format(reason=report['reason'])}", markup=False)
    if report["problem"]:
        console.print(Text(f"The stack did not start: {report['problem']}", "red"))
    for each in report["asked"]:
        outcome = Text(each["error"], "red") if each["error"] else Text(f"answered in {each['seconds']:.2f} s", "green")
        console.print(Text(f"Asked {each['model']}: ") + outcome)
    if report["left_out"]:
        console.print(Text(f"Not asked, since they run elsewhere: {', '.join(report['left_out'])}", "yellow"))
    for each in report["attempts"]:
        console.print(Text("Attempt: ", "red") + _described(each))
    for each in report["listening"]:
        console.print(Text("Open to others: ", "red") + Text(f"a process listens on {each}"))
    if report["unseen"]:
        console.print(Text(f"{report['unseen']} packets were not seen, because there were too many at once.", "red"))
    if not any(report[key] for key in ("attempts", "listening", "unseen")):
        proven = "" if _unproven(report) else ", and everything answered"
        console.print(Text(f"No attempt to reach a network{proven}.", "yellow" if _unproven(report) else "bold green"))


def _described(attempt: Mapping[str, Any]) -> Text:
    times = f", {attempt['times']} times" if attempt["times"] > 1 else ""
    if attempt["seen_by"] == "kernel":
        return Text(f"{attempt['what']} {attempt['to']} (seen by the kernel{times}: native code, not Python's sockets)")
    text = (
        f"{attempt['what']} {attempt['to']} (refused by the guard{times})\n  by {attempt['by'] or 'an unknown caller'}"
    )
    return Text(f"{text}\n  in {attempt['process']}")
