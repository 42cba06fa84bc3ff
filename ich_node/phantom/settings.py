"""What a phantom is to look like."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

LESIONS: Final = ("epidural", "intraparenchymal", "intraventricular", "subarachnoid", "subdural")
LESION_HU: Final = {
    "epidural": 65.0,
    "intraparenchymal": 62.0,
    "intraventricular": 58.0,
    "subarachnoid": 56.0,
    "subdural": 60.0,
}
FIELD_OF_VIEW_MM: Final = 240.0
SMALLEST_MATRIX: Final = 32
LARGEST_MATRIX: Final = 1024


@dataclass(frozen=True)
class PhantomSettings:
    """Everything a phantom depends on: equal settings give an equal volume.

    Raises ValueError for an unknown lesion or a geometry that cannot be drawn.
    """

    lesion: str | tuple[str, ...] | None = None
    """None, one of LESIONS, or several of them."""
    slices: int = 32
    rows: int = 512
    """Rows and columns of the square matrix; it always covers 240 mm."""
    seed: int = 0
    """Varies head size, asymmetry, folding, ventricles and noise."""
    slice_spacing_mm: float = 5.0
    """Along the slice normal; also the slice thickness."""
    gantry_tilt_degrees: float = 0.0
    """Positive: the front of a plane lies higher than its back, the sign that GE writes."""
    noise_hu: float = 4.0
    """Standard deviation in the brain."""
    patient_name: str = "Phäntom^Test"
    patient_id: str = "PHANTOM-1"
    accession_number: str = "ACC0001"
    study_instance_uid: str | None = None
    series_instance_uid: str | None = None
    uid_seed: str | None = None
    """Text that fixes every UID not given; None: fresh ones."""
    acquired_at: datetime | None = None
    """Local time of the first slice; None: now."""

    def __post_init__(self) -> None:
        if unknown := set(self.lesions) - set(LESIONS):
            raise ValueError(f"no such lesion: {', '.join(sorted(unknown))}; one of {', '.join(LESIONS)}")
        if not SMALLEST_MATRIX <= self.rows <= LARGEST_MATRIX:
            raise ValueError(f"rows must be {SMALLEST_MATRIX} to {LARGEST_MATRIX}")
        if self.slices < 1 or self.slice_spacing_mm <= 0 or self.noise_hu < 0 or self.seed < 0:
            raise ValueError("slices and spacing must be positive, noise and seed not negative")
        if abs(self.gantry_tilt_degrees) > 45:
            raise ValueError("gantry tilt must be within 45 degrees")

    @property
    def lesions(self) -> tuple[str, ...]:
        """The lesions to draw, as a tuple."""
        if self.lesion is None:
            return ()
        return (self.lesion,) if isinstance(self.lesion, str) else tuple(self.lesion)

    @property
    def pixel_spacing_mm(self) -> float:
        """Distance of neighbouring rows, and of neighbouring columns."""
        return FIELD_OF_VIEW_MM / self.rows
