"""What the pixels of a grey brain-window image are, in eight bits: the `regions` of a shard."""

from typing import Final

WINDOWED: Final = 0
"""Between the ends of the window: the grey value tells the Hounsfield value."""
AIR: Final = 1
"""0 that is joined to the border."""
INSIDE: Final = 2
"""0 inside the skull: fluid, or fat."""
SCALP: Final = 3
"""0 between skin and skull: fat."""
DENSE: Final = 4
"""255 that is no skull: blood, calcification, metal."""
SKULL: Final = 16
"""SKULL + d: bone, d pixels deep, from the edge of the skull."""
DEEPEST: Final = 63
"""Largest d; what lies deeper has it too."""
CODES: Final = SKULL + DEEPEST + 1
