"""A run and its evaluation → a model bundle for the node, or nothing.

The bundle is written beside its place, opened by every engine of this machine as the node would open it, and compared
with the training network on validation slices. Only then it is moved.
"""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from torch import Tensor

from ich_node.errors import TrainingError
from ich_node.model.activation_map import has_activation_maps
from ich_node.model.bundle import Stored, load_bundle, verify_bundle, write_bundle
from ich_node.model.manifest import Manifest
from ich_node.model.network import SequenceHead, SequenceHeadSettings
from ich_node.training.bundle_place import beside, demand_place, put_in_place
from ich_node.training.evaluate.evaluation import Evaluation
from ich_node.training.fit.networks import load_network
from ich_node.training.manifest_fields import manifest_fields
from ich_node.training.model_card import write_card
from ich_node.training.parity import EngineParity, TrainingNetwork, check_parity
from ich_node.training.run_folder import RunInfo, Weights, network_of, read_run
from ich_node.windowing import Windowing

_LOG = logging.getLogger(__name__)

FEWEST_SLICES: Final = 8
"""That the engines are compared on; fewer would prove little."""


@dataclass(frozen=True, slots=True)
class ExportSettings:
    """What to call a bundle and how to write it."""

    name: str
    version: str
    weights: Weights = "final"
    stored: Stored = "float16"
    replace: bool = False
    """A bundle that is at the place already."""
    notes: str = ""
    """For the model card, Markdown."""


@dataclass(frozen=True, slots=True, eq=False)
class TrainedHead:
    """A sequence head that reads the embeddings of the run's slice network."""

    settings: SequenceHeadSettings
    state: dict[str, Tensor]
    """float32."""
    trained_on: str = "slices held out"


@dataclass(frozen=True, slots=True, eq=False)
class Exported:
    """A bundle that was written."""

    directory: Path
    manifest: Manifest
    parity: tuple[EngineParity, ...]
    warnings: tuple[str, ...]
    """To be shown to whoever exports, as of thresholds that call most negatives indeterminate."""


def export_bundle(
    run_directory: Path,
    evaluation: Evaluation,
    out_directory: Path,
    validation_hu: NDArray[np.floating],
    settings: ExportSettings,
    head: TrainedHead | None = None,
) -> Exported:
    """Write the bundle of a run, or nothing at all.

    Args:
        run_directory: Of ``ich-train fit``.
        evaluation: Whose temperatures, thresholds and figures go into the bundle.
        out_directory: Where the bundle goes; made.
        validation_hu: (slices, rows, columns), at least eight slices in HU that the run was not trained on.
        settings: Name, version, how weights are stored.
        head: A sequence head, where one was trained; the evaluation must be of its scores.

    Raises:
        TrainingError: the run sees neighbours, an engine differs by more than 0.01, or the place is taken.
        ModelError: the weights do not fit the backbone, or cannot be stored as wanted.
    """
    run = read_run(run_directory)
    if evaluation.conditions.network not in ("", network_of(run_directory)):
        raise TrainingError(
            "the evaluation is of other networks than this run's; evaluate the folds of what is exported"
        )
    _demand_exportable(run, evaluation, out_directory, validation_hu, settings, head)
    network = load_network(run_directory, settings.weights)
    trained = TrainingNetwork(network, _build_head(head))
    with torch.inference_mode():
        images = Windowing(run.preprocessing)(torch.from_numpy(np.asarray(validation_hu, np.float32)))
    fields = manifest_fields(run, evaluation, head.settings if head else None, head.trained_on if head else "") | {
        "name": settings.name,
        "version": settings.version,
        "activation_maps": has_activation_maps(network.backbone, images[:FEWEST_SLICES]),
    }
    promised = _promise(fields)
    with beside(out_directory) as draft:
        states = network.state_dict(), head.state if head else None
        write_bundle(draft, fields, *states, stored=settings.stored)
        parity = check_parity(trained, load_bundle(draft), images)
        card = write_card(promised, evaluation, parity, settings.notes, run.fold)
        manifest = write_bundle(draft, fields, *states, card, settings.stored)
        if faults := verify_bundle(draft):
            raise TrainingError(f"the bundle that was written is not whole: {faults[0]}; is the disk full?")
        put_in_place(draft, out_directory)
    for warning in evaluation.warnings:
        _LOG.warning("%s", warning)
    return Exported(out_directory, manifest, tuple(parity), evaluation.warnings)


def _demand_exportable(
    run: RunInfo,
    evaluation: Evaluation,
    out_directory: Path,
    validation_hu: NDArray[np.floating],
    settings: ExportSettings,
    head: TrainedHead | None,
) -> None:
    if run.neighbours:
        raise TrainingError(
            f"the run sees {run.neighbours} neighbours of each slice; the node scores each slice as it arrives. "
            "Train with neighbours 0, and a sequence head for what the neighbours say"
        )
    if len(validation_hu) < FEWEST_SLICES:
        raise TrainingError(f"{len(validation_hu)} validation slices; at least {FEWEST_SLICES} are needed to compare")
    if evaluation.conditions.sequence_head != (head is not None):
        raise TrainingError("evaluation and bundle do not agree on the sequence head; evaluate what is exported")
    demand_place(out_directory, replace=settings.replace)


def _promise(fields: dict[str, Any]) -> Manifest:
    """Give the manifest as it will be, but for the files."""
    try:
        return Manifest(**fields, files={})
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
        raise TrainingError(f"no bundle can say this: {faults}") from None


def _build_head(head: TrainedHead | None) -> SequenceHead | None:
    if head is None:
        return None
    built = SequenceHead(head.settings)
    built.load_state_dict(head.state)
    return built.eval().requires_grad_(False)
