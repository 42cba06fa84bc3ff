"""A PACS-integrated DICOM node that triages head CT for intracranial hemorrhage."""

from typing import Final

__version__: Final = "0.1.0"

IMPLEMENTATION_CLASS_UID: Final = "2.25.48246165380590166438638276888043836522"
IMPLEMENTATION_VERSION_NAME: Final = f"ICH_NODE_{__version__}"[:16]
"""How this software names itself in associations and files (PS3.7 D.3.3.2, PS3.10 7.1)."""
