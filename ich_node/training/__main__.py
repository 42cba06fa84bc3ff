"""``python -m ich_node.training``: the same as ``ich-train``, for torchrun."""

import sys

from ich_node.training.cli import main

if __name__ == "__main__":
    sys.exit(main())
