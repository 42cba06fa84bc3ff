"""The command ``ich-node``, and ``python -m ich_node``."""

import gc
import sys


def main() -> int:
    """Run one command and return its exit status."""
    gc.disable()  # until all is imported, and stays: to look for garbage among it takes an eighth of a start
    from ich_node.cli import main as run

    return run()


if __name__ == "__main__":
    sys.exit(main())
