"""The model card: what a model is, what it rests on, how well it does, and where it fails (Mitchell et al. 2019)."""

from collections.abc import Iterable, Sequence
from typing import Final

from ich_node.model.manifest import Manifest
from ich_node.training.evaluate import tables
from ich_node.training.evaluate.evaluation import Evaluation
from ich_node.training.evaluate.tables import Table
from ich_node.training.parity import LARGEST_DIFFERENCE, EngineParity

_INTENDED_USE: Final = (
    "Research on the triage of non-contrast head CT: it sorts studies into *suspected hemorrhage*, *indeterminate* "
    "and *no finding*, and names the slices to look at first. It is **not a medical device**, was not cleared by any "
    "authority, and must not be used for diagnosis. A negative answer does not exclude hemorrhage. A site measures it "
    "on its own studies before it uses it at all."
)
_WEAKNESSES: Final = (
    "It looks at axial slices of non-contrast head CT. What the node lets through and should not (contrast, other "
    "body parts, heavy metal or motion artefacts) can give any answer.",
    "Small, thin and isodense hemorrhages are the hardest to see, for it as for people; the table by size, where there "
    "is one, says how many it finds.",
    "Its probabilities fit the share of positives in the data below. Where a site sees fewer, more alerts are false; "
    "see the table by prevalence.",
    "The thresholds were chosen on the same cases that they are measured on; the cross-fitted columns say what they do "
    "to others.",
    "Scanners, kernels, countries and ages that are not in the data were not tested.",
)
_IN_8_BITS: Final = "## In 8 bits"
_OF_OTHER_NETWORKS: Final = (
    "The figures are those of the networks of cross-validation, each on what it had not seen. The weights in this "
    "bundle are of one training by itself, to which the figures carry over as far as the trainings are alike."
)
_OF_THIS_NETWORK: Final = (
    "The figures are of the very weights in this bundle, on the patients of fold {fold}, whom they never saw. Other "
    "patients held out would give other figures: the intervals say how far apart, as far as these patients can tell."
)


def write_card(
    manifest: Manifest,
    evaluation: Evaluation,
    parity: Sequence[EngineParity],
    notes: str = "",
    held_out_fold: int | None = None,
) -> str:
    """Write the card as Markdown; ``notes`` is what its makers have to say, Markdown too.

    ``held_out_fold`` is of the run that ships: where the evaluation is of that fold alone, its figures are of these
    weights.
    """
    own = held_out_fold is not None and evaluation.conditions.folds == (held_out_fold,)
    whose = _OF_THIS_NETWORK.format(fold=held_out_fold) if own else _OF_OTHER_NETWORKS
    parts = [
        _title(manifest, evaluation),
        f"## What it is\n\n{_description(manifest)}",
        *([f"## From its makers\n\n{notes.strip()}"] if notes.strip() else []),
        f"## Intended use\n\n{_INTENDED_USE}",
        f"## Training data and terms\n\n{_data(manifest)}",
        f"## How it was measured\n\n{_method(evaluation)}",
        _figures(evaluation),
        f"## Operating points\n\n{_operating_points(manifest, evaluation)}",
        f"## Known weaknesses\n\n{_list((whose, *_WEAKNESSES))}",
        f"## Engines against the training network\n\n{_parity(parity)}",
    ]
    return "\n\n".join(parts) + "\n"


def with_quantized_section(card: str, before: Manifest, manifest: Manifest) -> str:
    """Give the card of a bundle, written as Markdown before, the version and the section of its network in 8 bits."""
    body, _, _ = card.partition(f"\n{_IN_8_BITS}\n")
    body = body.replace(f"# {before.name} {before.version}\n", f"# {manifest.name} {manifest.version}\n", 1)
    return f"{body.rstrip()}\n\n{_IN_8_BITS}\n\n{_quantized(manifest)}\n"


def _quantized(manifest: Manifest) -> str:
    stated = manifest.quantized
    assert stated is not None, "the section is about it"
    assert stated.figures is not None, "it was measured"
    rows = (
        ("Made by", stated.made_by),
        ("How", stated.recipe),
        ("Ranges set by", stated.calibrated_on),
        ("Compared with float32 on", stated.figures.compared_on),
        ("Largest difference in probability, any class and slice", f"{stated.figures.largest_difference:.4f}"),
        ("Mean over slices of the largest of a class", f"{stated.figures.mean_difference:.4f}"),
        ("Studies with the same answer", f"{stated.figures.equal_decisions} of {stated.figures.studies}"),
        ("Measured on", stated.figures.device),
    )
    return (
        "The engine `openvino-int8` runs this network in 8 bits, where `model.engine` names it. All other figures of "
        "this card are of the network in float32.\n\n" + _markdown(Table("", ("", ""), rows))
    )


def _title(manifest: Manifest, evaluation: Evaluation) -> str:
    lines = [f"# {manifest.name} {manifest.version}"]
    if evaluation.conditions.phantoms_only:
        lines.append(f"> **{tables.PHANTOM_NOTICE}**")
    lines.append("Finds intracranial hemorrhage on head CT. Research software, not a medical device.")
    if evaluation.warnings:
        lines.append("**Warnings**\n\n" + _list(evaluation.warnings))
    return "\n\n".join(lines)


def _description(manifest: Manifest) -> str:
    size, head = manifest.preprocessing.size_px, manifest.sequence_head
    sequence = (
        "A sequence head reads the slices in anatomical order and gives the study's score."
        if head
        else "The study's score is the mean of its three highest slices after smoothing along the series."
    )
    maps = (
        "The last layer is linear on a mean over places, so class activation maps come from the network itself "
        "(they equal Grad-CAM at its last feature map)."
        if manifest.activation_maps
        else "It gives no class activation maps."
    )
    return (
        f"A slice network, `{manifest.backbone}` (timm), sees each slice at {size} x {size} px in three windows "
        f"and gives six probabilities: {', '.join(manifest.classes)}. {sequence} {maps} `manifest.json` "
        "states every number between the pixels and the answer."
    )


def _data(manifest: Manifest) -> str:
    rows = [
        (one.name, _count(one.slices), _count(one.patients), one.terms.replace("\n", " "))
        for one in manifest.training_data
    ]
    if not rows:
        return "Not stated by the run."
    return _markdown(Table("", ("Source", "Slices", "Patients", "Terms of use"), tuple(rows)))


def _method(evaluation: Evaluation) -> str:
    known = "no patient is" if evaluation.conditions.patients_known else "no patient who is known is"
    return (
        f"On slices that the scoring network had not seen (out of fold); {known} on both sides. Intervals are of "
        "95 %, bootstrapped by patient; the lower bounds of the operating points are exact (Clopper and Pearson).\n\n"
        + _markdown(tables.conditions_table(evaluation))
    )


def _figures(evaluation: Evaluation) -> str:
    studies = (
        tables.level_tables(evaluation.studies, "Studies")
        if evaluation.studies
        else [Table("Studies", (), (), ("The data hold no whole studies; nothing can be said of studies.",))]
    )
    parts = [
        tables.summary_table(evaluation),
        *studies,
        *tables.level_tables(evaluation.slices, "Slices"),
        tables.source_table(evaluation),
        tables.lesion_table(evaluation),
        tables.disturbance_table(evaluation),
        tables.prevalence_table(evaluation),
        tables.calibration_table(evaluation),
    ]
    return "## Figures\n\n" + "\n\n".join(f"### {one.title}\n\n{_markdown(one)}" for one in parts)


def _operating_points(manifest: Manifest, evaluation: Evaluation) -> str:
    points = manifest.operating_points or {}
    lines = _list(point.in_words(name) for name, point in points.items())
    table = _markdown(tables.operating_point_table(evaluation))
    return f"They rest on: {manifest.thresholds_basis}.\n\n{lines}\n\n{table}"


def _parity(parity: Sequence[EngineParity]) -> str:
    rows = tuple((one.engine, one.device, str(one.slices), f"{one.largest_difference:.5f}") for one in parity)
    note = f"Export refuses a difference of more than {LARGEST_DIFFERENCE} in probability."
    return _markdown(Table("", ("Engine", "Device", "Slices", "Largest difference in probability"), rows, (note,)))


def _markdown(table: Table) -> str:
    lines = []
    if table.rows:
        header = table.header if any(table.header) else ("",) * len(table.rows[0])
        lines = [_row(header), _row(["---"] * len(header)), *(_row(row) for row in table.rows)]
    return "\n\n".join(part for part in ("\n".join(lines), _list(table.notes)) if part)


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _list(texts: Iterable[str]) -> str:
    return "\n".join(f"- {text}" for text in texts)


def _count(number: int | None) -> str:
    return tables.UNKNOWN if number is None else str(number)
