"""Where a bundle is written: beside its place first, and moved there when it is whole."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ich_node.errors import TrainingError
from ich_node.model.bundle import MANIFEST


def demand_place(place: Path, *, replace: bool) -> None:
    """See that a bundle may be put at a place.

    Raises:
        TrainingError: something is there; with ``replace``, something that is no bundle.
    """
    if _is_taken(place) and not (replace and _is_bundle(place)):
        raise TrainingError(f"{place}: something is there; choose another place, or say --replace where it is a bundle")


@contextmanager
def beside(out_directory: Path) -> Iterator[Path]:
    """Give a folder beside the place; whatever is still in it afterwards goes."""
    draft = out_directory.with_name(f".{out_directory.name}.part")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    try:
        yield draft
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def put_in_place(draft: Path, place: Path) -> None:
    """Move a finished bundle to its place; what was there goes when the new one stands."""
    older = place.with_name(f".{place.name}.old")
    shutil.rmtree(older, ignore_errors=True)
    if place.exists():
        place.rename(older)
    try:
        draft.rename(place)
    except OSError:
        if older.exists():
            older.rename(place)
        raise
    shutil.rmtree(older, ignore_errors=True)


def _is_taken(place: Path) -> bool:
    return place.exists() and (not place.is_dir() or any(place.iterdir()))


def _is_bundle(place: Path) -> bool:
    """A folder with a manifest and plain files alone: nothing else is ever replaced."""
    return (place / MANIFEST).is_file() and all(one.is_file() for one in place.iterdir())
