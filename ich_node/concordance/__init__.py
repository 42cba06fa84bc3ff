"""How far readers and node agree, from what readers say of its answers.

``truth.py`` says what is known of an answer, ``figures.py`` counts, and ``label_table.py`` writes what is known as a
table of labels for ``ich-train prepare``.
"""

from ich_node.concordance.figures import Concordance, Figures, Period, concordance_of
from ich_node.concordance.label_table import LabelTable, label_table
from ich_node.intervals.proportion import Proportion

__all__ = ["Concordance", "Figures", "LabelTable", "Period", "Proportion", "concordance_of", "label_table"]
