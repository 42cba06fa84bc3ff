"""The DICOM objects that carry a result to the PACS."""
