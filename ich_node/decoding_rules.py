"""What the configuration says of decoding, for whoever starts decoding children."""

from __future__ import annotations

from functools import partial

from ich_node.config import Config
from ich_node.decode import DecodeLimits
from ich_node.decode.instance import DeclineSlice
from ich_node.eligibility import slice_ineligibility
from ich_node.records import EligibilityRules


def decode_limits(config: Config) -> DecodeLimits:
    """Give the limits of the decoding children."""
    return DecodeLimits(
        max_rows=config.decode.maximum_rows,
        max_columns=config.decode.maximum_columns,
        max_frames=config.decode.maximum_frames,
        seconds_per_object=config.decode.timeout_s,
        address_space_bytes=config.decode.memory_mib * 1024 * 1024,
    )


def eligibility_rules(config: Config) -> EligibilityRules:
    """Give what the site decides of eligibility."""
    settings = config.eligibility
    return EligibilityRules(settings.minimum_age_years, settings.pixel_gate, settings.no_contrast_values)


def decline_by(config: Config) -> DeclineSlice:
    """Give the judgement of a slice by its header, as the decoding children need it."""
    return partial(slice_ineligibility, rules=eligibility_rules(config))
