"""What goes with a release: its parts list (``make sbom``), and known weaknesses of the parts (``make audit``)."""
