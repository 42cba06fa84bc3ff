"""Make the network of a run, its average and its optimizer; read the weights that a run or a bundle left."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import torch
from timm.optim._param_groups import param_groups_weight_decay
from timm.utils.model_ema import ModelEmaV3
from torch import Tensor, nn

from ich_node.errors import TrainingError
from ich_node.model.bundle import MANIFEST, load_bundle
from ich_node.model.network import SliceNetwork
from ich_node.training.fit.checkpoint import load_state, part_of
from ich_node.training.fit.settings import FitSettings, channels_of
from ich_node.training.prepared import PreparedSet
from ich_node.training.run_folder import CONFIG, Weights, read_run, read_weights

FINAL: Final = "final.safetensors"
BEST: Final = "best.safetensors"
CHECKPOINT: Final = "checkpoint.safetensors"


def make_network(settings: FitSettings, device: torch.device) -> SliceNetwork:
    """Make the network that a run starts from, in channels_last.

    Raises:
        TrainingError: timm does not know the backbone, its weights cannot be fetched, or others do not fit.
    """
    torch.manual_seed(settings.seed)
    try:
        network = SliceNetwork(settings.backbone, settings.pretrained, settings.channels, settings.dropout)
    except (RuntimeError, OSError, ValueError) as error:
        if not settings.pretrained:
            raise TrainingError(f"timm makes no network {settings.backbone!r}: {error}") from None
        raise TrainingError(
            f"no pre-trained weights of {settings.backbone!r} could be had ({error}); where no hub can be reached, "
            "give --init a run or a bundle, or take the preset scratch"
        ) from None
    if settings.init is not None:
        _start_from(network, Path(settings.init))
    return network.to(device).to(memory_format=torch.channels_last)


def make_average(settings: FitSettings, network: SliceNetwork) -> ModelEmaV3 | None:
    """Make the moving average of a network's weights; it follows closely at first, then slowly."""
    return ModelEmaV3(network, decay=settings.ema, use_warmup=True) if settings.ema else None


def make_optimizer(settings: FitSettings, network: nn.Module) -> torch.optim.Optimizer:
    """AdamW (arXiv 1711.05101), whose decay spares biases and norms; or Adam (arXiv 1412.6980) as the project began."""
    if settings.optimizer == "adam":
        return torch.optim.Adam(network.parameters(), settings.learning_rate, weight_decay=settings.weight_decay)
    groups: list[dict[str, Any]] = param_groups_weight_decay(network, settings.weight_decay)
    return torch.optim.AdamW(groups, settings.learning_rate, fused=True)


def load_network(directory: Path, weights: Weights = "final") -> SliceNetwork:
    """Load the network of a finished run, ready to score, in float32 on the processor.

    Raises:
        TrainingError: the run is not finished, or its weights do not fit its configuration.
    """
    run = read_run(directory)
    network = SliceNetwork(run.backbone, channels=channels_of(run.neighbours))
    _fill(network, read_weights(directory, weights), directory)
    return network.eval().requires_grad_(False)


def data_of(directory: Path) -> list[dict[str, Any]]:
    """What the weights of a run or a bundle were trained on."""
    if (directory / MANIFEST).exists():
        return [one.model_dump() for one in load_bundle(directory).manifest.training_data]
    return [one.model_dump() for one in read_run(directory).data]


def demand_unseen(directory: Path, fold: int | None, data: Sequence[PreparedSet]) -> None:
    """Refuse weights that have seen, or may have seen, the slices that are to be held out.

    Raises:
        TrainingError: they have; says with which weights the scores would be out of fold.
    """
    sources = {name for one in data for name in one.manifest.counts}
    tables = {one.manifest.table_sha256 for one in data}
    known = [one for one in data_of(directory) if one["name"] in sources]
    if not known:
        return
    config = directory / CONFIG
    same_fold = config.exists() and json.loads(config.read_text()).get("settings", {}).get("fold") == fold
    if not (same_fold and all(one.get("table_sha256") in tables for one in known)):
        raise TrainingError(
            f"the weights in {directory} were trained on {known[0]['name']}, and not with fold {fold} held out: "
            "scores of that fold would not be of slices they never saw; start from a run of the same fold, "
            "or leave --fold out"
        )


def _start_from(network: SliceNetwork, directory: Path) -> None:
    """Take the weights of a bundle, of a finished run, or of the last checkpoint of one that was not."""
    if (directory / MANIFEST).exists():
        tensors = load_bundle(directory).network_state
    elif (directory / FINAL).exists():
        tensors = read_weights(directory)
    else:
        every, _ = load_state(directory / CHECKPOINT)
        tensors = part_of(every, "average.") or part_of(every, "network.")
    _fill(network, tensors, directory)


def _fill(network: SliceNetwork, tensors: dict[str, Tensor], source: Path) -> None:
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise TrainingError(f"{source}: weights of another backbone or number of channels ({reason})") from None
