"""What a reconstruction kernel is meant for: soft tissue or bone."""

import re
from enum import Enum
from typing import Final


class KernelClass(Enum):
    """Soft for brain, sharp for bone."""

    SOFT = "soft"
    BONE = "bone"
    UNKNOWN = "unknown"


# ConvolutionKernel as the makers write it, in capitals; the first that fits speaks. A site's own kernel: one more line.
_KERNELS: Final[tuple[tuple[str, KernelClass], ...]] = (
    # Canon, Toshiba: FC and the purpose in the first digit (30 bone, 50 lung, 80 fine bone). 60 and 70: not known.
    (r"FC[0124]\d", KernelClass.SOFT),
    (r"FC[358]\d", KernelClass.BONE),
    # Siemens: family letters, then a number that rises with sharpness (H31s, J40s, Hr40f, Hr69h); from 60 for bone.
    (r"[BHIJQSTU][A-Z]?[1-5]\d[A-Z]{0,2}\b", KernelClass.SOFT),
    (r"[BHIJQSTU][A-Z]?[6-9]\d[A-Z]{0,2}\b", KernelClass.BONE),
    # Philips: one letter that rises with sharpness, U and Y in front for newer ones; UB brain, YA to YE bone.
    (r"U?[ABC]\b", KernelClass.SOFT),
    (r"(U?[DE]|L|Y[A-E])\b", KernelClass.BONE),
    # GE and United Imaging write words.
    (r".*(BONE|EDGE|LUNG|SHARP|ULTRA|KNOCHEN)", KernelClass.BONE),
    (r".*(STANDARD|STND|STD|SOFT|DETAIL|SMOOTH|BRAIN)", KernelClass.SOFT),
)


def kernel_class(convolution_kernel: str) -> KernelClass:
    """Tell what a ConvolutionKernel is for; UNKNOWN where the table does not name it."""
    text = convolution_kernel.strip().upper()
    return next((kind for pattern, kind in _KERNELS if re.match(pattern, text)), KernelClass.UNKNOWN)
