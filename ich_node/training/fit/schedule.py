"""What a run does at which step; a function of the step alone, so a run can go on anywhere."""

import math
from dataclasses import dataclass

from ich_node.training.fit.settings import FitSettings


@dataclass(frozen=True, slots=True)
class Schedule:
    """Steps, learning rate and image size of a run."""

    settings: FitSettings
    steps_per_epoch: int

    @property
    def steps(self) -> int:
        return self.steps_per_epoch * self.settings.epochs

    def learning_rate(self, step: int) -> float:
        """Rise evenly to the peak, then stay or fall along a half cosine to 0 (SGDR, arXiv 1608.03983)."""
        peak = self.settings.learning_rate
        warm = round(self.steps * self.settings.warmup_fraction)
        if step < warm:
            return peak * (step + 1) / warm
        if self.settings.schedule == "constant":
            return peak
        return peak * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, self.steps - warm)))

    def size_px(self, step: int) -> int:
        """Side of the images at a step."""
        settings = self.settings
        if settings.final_size_px is not None and step >= self.steps * (1 - settings.final_fraction):
            return settings.final_size_px
        if settings.early_size_px is not None and step < self.steps * settings.early_fraction:
            return settings.early_size_px
        return settings.size_px


def make_schedule(settings: FitSettings, draws: int) -> Schedule:
    """Divide epochs of so many slices into steps; what does not fill a batch waits for the next epoch's draw."""
    return Schedule(settings, max(1, draws // settings.batch))
