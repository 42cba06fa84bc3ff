"""What tests of every kind share."""

import gc
import logging
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.provoked import table_of


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """End with what was provoked."""
    if lines := table_of(terminalreporter.getreports("passed")):
        terminalreporter.section("provoked")
        for line in lines:
            terminalreporter.write_line(line)


@pytest.fixture
def collect_garbage() -> Iterator[None]:
    """Collect what a test left behind while its own marks still hold."""
    yield
    gc.collect()


@pytest.fixture(autouse=True)
def handlers_listen_as_before() -> Iterator[None]:
    """Undo what libraries do to the handlers of others: quantization leaves them deaf to warnings."""
    levels = [(handler, handler.level) for handler in logging.getLogger().handlers]
    yield
    for handler, level in levels:
        handler.setLevel(level)


@pytest.fixture
def logging_put_back() -> Iterator[None]:
    """Undo what ``start_logging`` changes in this process."""
    root = logging.getLogger()
    loggers = [root, *(logging.getLogger(name) for name in ("ich_node", "pynetdicom", "pydicom"))]
    handlers, levels, raises = root.handlers[:], [one.level for one in loggers], logging.raiseExceptions
    hooks = sys.excepthook, sys.unraisablehook, threading.excepthook
    yield
    sys.excepthook, sys.unraisablehook, threading.excepthook = hooks
    root.handlers[:], logging.raiseExceptions = handlers, raises
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)
    logging.captureWarnings(capture=False)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real head CT beside the checkout; tests that need it skip where it is absent."""
    root = Path(os.environ.get("ICH_NODE_SHARED", Path(__file__).resolve().parents[2] / "shared"))
    if not (root / "data").is_dir():
        pytest.skip("real data (../shared/data) is absent")
    return root / "data"


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained bundle with a small backbone at 64 px: quick, and its scores differ between slices."""
    from ich_node.model.untrained import make_untrained_bundle
    from ich_node.phantom import LESIONS, PhantomSettings, draw_volume

    directory = tmp_path_factory.mktemp("models") / "tiny"
    heads = [
        draw_volume(PhantomSettings(lesion=one, slices=8, rows=64, slice_spacing_mm=16)) for one in (None, *LESIONS)
    ]
    make_untrained_bundle(directory, heads, backbone="test_resnet", size_px=64, name="tiny")
    return directory


@pytest.fixture(scope="session")
def tiny_model(tiny_bundle: Path):
    """The tiny bundle, open on the torch engine, findings shown as those of a test model."""
    from ich_node.pipeline import open_model

    return open_model(tiny_bundle, "torch", threads=1, show_untrained=True)


@pytest.fixture(scope="session")
def decoder() -> Iterator[object]:
    """One pool of decoding children for the whole session: each takes a second to start."""
    from ich_node.decode import DecodeLimits, DecoderPool
    from ich_node.eligibility import slice_ineligibility

    with DecoderPool(DecodeLimits(), slice_ineligibility) as pool:
        yield pool


@pytest.fixture(scope="session")
def migrated_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a new database: to copy it is quicker than to make it."""
    from ich_node.database import open_database, prepare_database

    folder = tmp_path_factory.mktemp("database")
    database = open_database(f"sqlite:///{folder / 'ich-node.sqlite'}")
    prepare_database(database, folder)
    database.close()
    return folder / "ich-node.sqlite"
