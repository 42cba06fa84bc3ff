"""Draw a synthetic head CT with hemorrhages of known truth.

The head lies supine in a holder: scalp, skull with diploe, skull base with sinuses and orbits, folded cortex, white
matter, deep grey nuclei, ventricles, cisterns, falx, tentorium, cerebellum, scanner noise. Positions below are in mm of
the patient (x to the left, y to the back, z to the top, 0 at the level of the ears) before the seed's variation of
head size (4 %).

================ ==== ============================================== =========================
lesion           HU   shape                                          centre (x, y, z)
================ ==== ============================================== =========================
epidural         65   lens under the inner table, 17 mm thick        (-62, 8, 46), right
intraparenchymal 62   ragged ellipsoid, oedema of 20 HU round it     (-29, 2, 38), right
intraventricular 58   layer with a fluid level in both atria         (24, 44, 40), both
subarachnoid     56   suprasellar cistern, fissures, nearby sulci    (0, -10, 16), within 50 mm
subdural         60   crescent along the convexity, 8 mm thick       (62, 0, 52), left
================ ==== ============================================== =========================

From a matrix of 128 on, the mean over a lesion's mask lies within 8 HU of the table: borders are shared with their
surroundings, and sulci are thin.
"""

from ich_node.phantom.series import make_series, write_series
from ich_node.phantom.settings import LESION_HU, LESIONS, PhantomSettings
from ich_node.phantom.volume import draw_volume, lesion_mask

__all__ = ["LESIONS", "LESION_HU", "PhantomSettings", "draw_volume", "lesion_mask", "make_series", "write_series"]
