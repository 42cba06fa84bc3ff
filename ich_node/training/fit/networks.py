"""Make the network of a run, its average and its optimizer; read the weights that a run or a bundle left."""

from pathlib import Path
from typing import Any, Final

import torch
from timm.optim._param_groups import param_groups_weight_decay
from timm.utils.model_ema import ModelEmaV3
from torch import Tensor, nn

from ich_node.errors import TrainingError
from ich_node.model.bundle import MANIFEST, load_bundle
from ich_node.model.network import SliceNetwork
from ich_node.training.fit.checkpoint import load_state
from ich_node.training.fit.settings import FitSettings

FINAL: Final = "final.safetensors"
BEST: Final = "best.safetensors"


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
    return torch.optim.AdamW(groups, settings.learning_rate)


def load_network(directory: Path, settings: FitSettings, weights: str = FINAL) -> SliceNetwork:
    """Load the network of a finished run, ready to score, in float32 on the processor.

    Raises:
        TrainingError: the run is not finished, or its weights do not fit its configuration.
    """
    network = SliceNetwork(settings.backbone, channels=settings.channels)
    tensors, _ = load_state(directory / weights)
    _fill(network, tensors, directory / weights)
    return network.eval()


def _start_from(network: SliceNetwork, directory: Path) -> None:
    if (directory / MANIFEST).exists():
        state = load_bundle(directory).network_state
        tensors = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    else:
        tensors, _ = load_state(directory / FINAL)
    _fill(network, tensors, directory)


def _fill(network: SliceNetwork, tensors: dict[str, Tensor], source: Path) -> None:
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise TrainingError(f"{source}: weights of another backbone or number of channels ({reason})") from None
