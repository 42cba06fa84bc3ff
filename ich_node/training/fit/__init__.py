"""Train a slice network. Imports neither pydicom nor scikit-learn: GPU machines often have only torch and timm."""

from ich_node.training.fit.loop import fit
from ich_node.training.fit.settings import PRESETS, Augmentation, FitSettings, make_settings

__all__ = ["PRESETS", "Augmentation", "FitSettings", "fit", "make_settings"]
