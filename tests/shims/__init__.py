"""Small libraries that are preloaded into the node's processes to make their system misbehave."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest


def compile_shim(name: str, folder: Path, sources: Path = Path(__file__).parent) -> Path:
    """Compile one of them; skipped where there is no compiler."""
    compiler = shutil.which("gcc")
    if compiler is None:
        pytest.skip("gcc is absent")
    library = folder / f"{name}.so"
    options = ["-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
    subprocess.run([compiler, *options, "-o", str(library), str(sources / f"{name}.c"), "-ldl"], check=True)
    return library
