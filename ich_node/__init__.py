"""A PACS-integrated DICOM node that triages head CT for intracranial hemorrhage."""

from typing import Final

__version__: Final = "0.1.0"
