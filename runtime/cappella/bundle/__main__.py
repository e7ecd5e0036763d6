"""`python3 -m cappella.bundle`: verify and install from Cappella's wheel, where it is not installed yet.

PYTHONPATH=BUNDLE/wheels/cappella-VERSION-py3-none-any.whl python3 -m cappella.bundle install BUNDLE TARGET
"""

import argparse
import sys
from pathlib import Path

from cappella.bundle import install, verify
from cappella.errors import ConfigError


def main() -> int:
    parser = argparse.ArgumentParser(prog="python3 -m cappella.bundle")
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("verify", "install"):
        command = commands.add_parser(name)
        command.add_argument("bundle", type=Path)
        command.add_argument("--key", type=Path, help="public key of the bundle's maker (PEM, Ed25519)")
    commands.choices["verify"].add_argument("--partial", action="store_true", help="accept missing files")
    commands.choices["install"].add_argument("target", type=Path)
    args = parser.parse_args()
    try:
        if args.command == "verify":
            verify.verify(args.bundle, args.key, args.partial)
        else:
            install.install(args.bundle, args.target, args.key)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
