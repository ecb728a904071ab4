"""What the command ``maxaffine`` runs: beside the package, which takes a second to import, so that Ctrl-C is clean."""

import sys


def main() -> None:
    """Run the command line; Ctrl-C at any moment is one line and exit code 130."""
    try:
        from maxaffine.cli import app

        app()
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(130)
