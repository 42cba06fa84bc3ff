"""What a process carries: the receiver and the deliverer do without the network's libraries."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = {"torch", "torchvision", "timm", "openvino", "highdicom"}


def loaded_by(module: str) -> set[str]:
    code = f"import sys, {module}; print(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return set(ended.stdout.split())


@pytest.mark.parametrize(
    "module", ["ich_node.receive", "ich_node.deliverer", "ich_node.supervisor", "ich_node.cli", "ich_node.web.server"]
)
def test_what_receives_and_delivers_imports_no_network_library(module: str) -> None:
    assert not loaded_by(module) & HEAVY


@pytest.mark.parametrize("module", ["ich_node.model.engine, ich_node.model.bundle", "benchmarks.gpu"])
def test_what_scores_on_a_gpu_needs_neither_dicom_nor_database_nor_openvino(module: str) -> None:
    loaded = loaded_by(module)
    assert "torch" in loaded
    assert not loaded & {"pydicom", "pynetdicom", "highdicom", "sqlalchemy", "openvino", "cryptography", "scipy"}


@pytest.mark.parametrize("module", ["ich_node.receive", "ich_node.deliverer", "ich_node.cli", "ich_node.web.server"])
def test_what_stays_in_memory_imports_no_statistics(module: str) -> None:
    assert not loaded_by(module) & {"scipy", "sklearn"}


def test_the_receiver_imports_neither_migrations_nor_scheduler_nor_terminal() -> None:
    assert not loaded_by("ich_node.receive") & {"alembic", "mako", "apscheduler", "psutil", "rich"}


def test_what_does_not_serve_pages_imports_no_web_server() -> None:
    assert not loaded_by("ich_node.deliverer, ich_node.web.certificate") & {"fastapi", "starlette", "uvicorn"}


def test_checking_a_configuration_imports_no_dicom() -> None:
    assert not loaded_by("ich_node.config") & {"pydicom", "pynetdicom", "sqlalchemy", "numpy"}
