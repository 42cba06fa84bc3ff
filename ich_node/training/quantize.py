"""A bundle → the same bundle with its slice network in 8 bits beside the other one, or nothing.

Post-training quantization by NNCF. Its ranges are set by slices that the network was trained on; how far it is from
float32 is measured on others. The node needs OpenVINO alone to run what comes of it.
"""

import logging
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import openvino
import torch
from numpy.typing import NDArray
from openvino import opset13 as ops
from torch import Tensor

from ich_node.errors import TrainingError
from ich_node.model.activation_map import FeatureMaps
from ich_node.model.bundle import (
    MODEL_CARD,
    ModelBundle,
    QuantizedFiles,
    load_bundle,
    verify_bundle,
    write_quantized_bundle,
)
from ich_node.model.engine import build_network, open_engine, open_quantized
from ich_node.model.manifest import Manifest, QuantizedNetwork
from ich_node.model.openvino_backbone import (
    BATCH_SIZE,
    CompiledBackbone,
    compile_model,
    convert_backbone,
    openvino_core,
)
from ich_node.training.bundle_place import beside, demand_place, put_in_place
from ich_node.training.fidelity import demand_fidelity, measure_fidelity
from ich_node.training.model_card import with_quantized_section
from ich_node.training.prepared import SliceRow
from ich_node.windowing import Windowing

FEWEST_SLICES: Final = 8
"""That ranges are set by, and that engines are compared on; fewer would prove little."""

_RECIPE: Final = (
    "post-training, mixed preset (weights symmetric by channel, activations asymmetric from their least to their "
    "largest value), fast bias correction; the first two convolutions in float32; scale and shift of each feature "
    "fitted to float32"
)
_EXACT: Final = 2
"""Convolutions at the beginning that stay in float32: little work, and what they lose is lost to all others."""
_MOST_CORRECTED: Final = 1.25
"""A feature that needs more is broken."""
_LEAST: Final = 1e-6


@dataclass(frozen=True, slots=True)
class QuantizeSettings:
    """What to call the bundle, and where it may go."""

    version: str
    replace: bool = False
    """A bundle that is at the place already."""
    threads: int | None = None
    """On the processor; None: all cores."""


def quantize_bundle(
    source: Path,
    out_directory: Path,
    calibration: Sequence[SliceRow],
    compared: Sequence[SliceRow],
    read_hu: Callable[[SliceRow], NDArray[np.float32]],
    settings: QuantizeSettings,
) -> Manifest:
    """Write a bundle with a network in 8 bits that was measured and is close enough, or nothing at all.

    Args:
        source: A bundle; its weights are taken over byte for byte.
        out_directory: Where the new bundle goes; made. It may be ``source``, with ``settings.replace``.
        calibration: Slices that set the ranges.
        compared: Other slices, some of them whole studies, that both networks score.
        read_hu: Gives a slice (rows, columns) in HU.
        settings: Version of the new bundle, and whether one may be replaced.

    Raises:
        TrainingError: too few slices, the place is taken, or the network in 8 bits differs too much.
        ModelError: the bundle has faults, or this processor cannot compute in 8 bits.
    """
    if min(len(calibration), len(compared)) < FEWEST_SLICES:
        raise TrainingError(
            f"{len(calibration)} slices to calibrate on and {len(compared)} to compare; at least {FEWEST_SLICES} "
            "of each are needed"
        )
    bundle = load_bundle(source)
    if settings.version == bundle.manifest.version:
        raise TrainingError(f"{source} has version {settings.version} already; give the new bundle another one")
    demand_place(out_directory, replace=settings.replace)
    files = quantize_network(bundle, _windowed(bundle, calibration, read_hu))
    threads = settings.threads or torch.get_num_threads()
    engines = open_quantized(bundle, files, threads), open_engine(bundle, "torch", threads)
    figures = measure_fidelity(bundle, *engines, compared, read_hu, _in_words(compared))
    demand_fidelity(figures)
    stated = QuantizedNetwork(made_by=_made_by(), recipe=_RECIPE, calibrated_on=_in_words(calibration), figures=figures)
    manifest = bundle.manifest.model_copy(update={"version": settings.version, "quantized": stated})
    card = with_quantized_section((source / MODEL_CARD).read_text(), bundle.manifest, manifest)
    with beside(out_directory) as draft:
        written = write_quantized_bundle(source, draft, manifest, files, card)
        if faults := verify_bundle(draft):
            raise TrainingError(f"the bundle that was written is not whole: {faults[0]}; is the disk full?")
        put_in_place(draft, out_directory)
    return written


def quantize_network(bundle: ModelBundle, images: Sequence[Tensor]) -> QuantizedFiles:
    """Quantize the slice network of a bundle; the ranges are set by windowed slices, each (1, 3, size, size)."""
    import nncf
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet

    nncf.set_log_level(logging.ERROR)
    network, size_px = build_network(bundle).backbone, bundle.manifest.preprocessing.size_px
    model = convert_backbone(
        FeatureMaps(network) if bundle.manifest.activation_maps else network, [BATCH_SIZE, 3, size_px, size_px]
    )
    expected = _embeddings(model, images)
    quantized = nncf.quantize(
        model,
        nncf.Dataset(images, lambda image: image.numpy()),
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=len(images),
        ignored_scope=nncf.IgnoredScope(names=_convolutions(model)[:_EXACT]),
        advanced_parameters=nncf.AdvancedQuantizationParameters(
            overflow_fix=nncf.OverflowFix.DISABLE,  # no processor that would saturate is let in
            activations_range_estimator_params=RangeEstimatorParametersSet.MINMAX,
        ),
    )
    _correct(quantized, expected, _embeddings(quantized, images))
    with tempfile.TemporaryDirectory(prefix="ich-train-") as folder:
        graph = Path(folder) / "network.xml"
        openvino.save_model(quantized, graph, compress_to_fp16=False)
        return QuantizedFiles(graph.read_bytes(), graph.with_suffix(".bin").read_bytes())


def _convolutions(model: Any) -> list[str]:
    """Name the convolutions of a converted network in the order in which they compute."""
    return [one.get_friendly_name() for one in model.get_ordered_ops() if one.get_type_name() == "Convolution"]


def _embeddings(model: Any, images: Sequence[Tensor]) -> NDArray[np.float32]:
    """Run a converted network on images, each (1, 3, size, size): (images, embedding)."""
    request = compile_model(openvino_core(), model, "f32", torch.get_num_threads())
    network = CompiledBackbone(request, "", BATCH_SIZE)
    return np.concatenate([network.embed(image) for image in images])


def _correct(model: Any, expected: NDArray[np.float32], found: NDArray[np.float32]) -> None:
    """Scale and shift each feature of a network to fit best what it should be: not all that 8 bits add is noise.

    Args:
        model: Whose outputs are changed: the embedding, and the feature maps whose mean it is.
        expected: (slices, embedding), in float32.
        found: (slices, embedding), of this network.
    """
    ours, theirs = found - found.mean(axis=0), expected - expected.mean(axis=0)
    scale = (ours * theirs).sum(axis=0) / np.maximum((ours * ours).sum(axis=0), _LEAST)
    scale = np.clip(scale, 1 / _MOST_CORRECTED, _MOST_CORRECTED)
    shift = expected.mean(axis=0) - scale * found.mean(axis=0)
    for result in model.get_results():
        place = (1, -1, *[1] * (len(result.shape) - 2))
        scaled = ops.multiply(result.input_value(0), ops.constant(scale.reshape(place), np.float32))
        corrected = ops.add(scaled, ops.constant(shift.reshape(place), np.float32))
        result.input(0).replace_source_output(corrected.output(0))
    model.validate_nodes_and_infer_types()


def _windowed(
    bundle: ModelBundle, rows: Sequence[SliceRow], read_hu: Callable[[SliceRow], NDArray[np.float32]]
) -> list[Tensor]:
    windowing = Windowing(bundle.manifest.preprocessing)
    with torch.inference_mode():
        return [windowing(torch.from_numpy(read_hu(row)).unsqueeze(0)) for row in rows]


def _in_words(rows: Sequence[SliceRow]) -> str:
    """Name the sources of slices, and how many are of each."""
    counts = {source: sum(row.source == source for row in rows) for source in sorted({row.source for row in rows})}
    return f"{len(rows)} slices (" + ", ".join(f"{source} {count}" for source, count in counts.items()) + ")"


def _made_by() -> str:
    import nncf

    return f"NNCF {nncf.__version__}, OpenVINO {openvino.get_version().split('-')[0]}"
