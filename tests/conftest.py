import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real head CT beside the checkout; tests that need it skip where it is absent."""
    root = Path(os.environ.get("ICH_NODE_SHARED", Path(__file__).resolve().parents[2] / "shared"))
    if not (root / "data").is_dir():
        pytest.skip("real data (../shared/data) is absent")
    return root / "data"
