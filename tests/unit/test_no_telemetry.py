"""The node calls nobody: a library's telemetry included."""

import os
import subprocess
import sys
from pathlib import Path


def test_openvino_is_loaded_without_its_telemetry(tmp_path: Path) -> None:
    """OpenVINO reports every import to its makers, unless asked not to; it then uses a stub that does nothing."""
    program = (
        "import ich_node.model.openvino_backbone, openvino.tools.ovc.telemetry_utils as telemetry;"
        "print(telemetry.tm.__name__)"
    )
    environment = os.environ | {"HOME": str(tmp_path)}
    answer = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True, timeout=120
    )
    assert answer.stdout.split() == ["openvino.tools.ovc.telemetry_stub"]
    assert list(tmp_path.iterdir()) == []  # the telemetry leaves a client number there
