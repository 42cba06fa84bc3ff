"""What tests of the training module share."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from ich_node.training.prepared import PreparedSet
from tests.unit.training.prepared_sets import make_prepared


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> PreparedSet:
    """Twenty small heads of eight slices in two folds."""
    return make_prepared(tmp_path_factory.mktemp("training") / "phantoms", heads=20)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tests run beside each other: threads that wait for each other cost more than they bring on so little."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return tmp_path / "run"
