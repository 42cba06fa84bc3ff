"""Whether series of one station and kernel still look, and end, as those of its reference did.

``series_measure`` says what is measured of a series, ``periods`` which series are compared with which, ``comparison``
how two of them differ (the home of scipy), ``looking`` what of that counts, ``wording`` how it is said. Only
``comparison`` and ``looking`` load scipy; nothing that stays in memory imports them.
"""

from ich_node.drift.results import Comparison, GroupLook, Look, Spread, look_from_json, look_to_json
from ich_node.drift.series_measure import measure_series
from ich_node.drift.wording import group_name, in_words

__all__ = [
    "Comparison",
    "GroupLook",
    "Look",
    "Spread",
    "group_name",
    "in_words",
    "look_from_json",
    "look_to_json",
    "measure_series",
]
