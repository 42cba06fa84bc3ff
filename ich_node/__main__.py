"""``python -m ich_node``: the same as the command ``ich-node``."""

import sys

from ich_node.cli import main

if __name__ == "__main__":
    sys.exit(main())
