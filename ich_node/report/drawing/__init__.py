"""Draw pages and pictures. The only place of the node that knows Pillow."""

from ich_node.report.drawing.canvas import Canvas, grey_png, resized
from ich_node.report.drawing.fonts import FontFiles, installed_fonts
from ich_node.report.drawing.lettering import Colour, Lettering, Style, lettering

__all__ = ["Canvas", "Colour", "FontFiles", "Lettering", "Style", "grey_png", "installed_fonts", "lettering", "resized"]
