"""The model: its bundle on disk, its networks, and the engines that run them.

Of its sibling stages it imports ``windowing`` alone: the manifest holds its settings, and the untrained bundle is
set up on windowed slices.
"""

import sys

# OpenVINO reports its use to its makers unless this package is absent. A hospital's node calls nobody.
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # Python's own way to say "not to be imported"
