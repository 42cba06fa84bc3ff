"""Sources of labelled slices → a prepared set: shards that train fast and reopen anywhere.

==================== ==========================================================================================
``run.py``          the whole: plan, shards, folds, table, manifest
``rsna.py``         RSNA 2019: a folder or zip archive of DICOM and `stage_2_train.csv`
``studies.py``      a folder of DICOM studies and a table
``images.py``       ready images and their table
``phantoms.py``     synthetic heads
``labels.py``       labels as tables state them
``entries.py``      files of folders and zip archives
``lot.py``          the records between sources, children and the table
``dicom.py``        one DICOM file → codes of Hounsfield units
``three_windows.py`` an image of three windows → Hounsfield units
``regions.py``      what 0 and 255 of a grey brain window stand for
``square.py``       any matrix → a square of one side
``picture.py``      the perceptual hash
``plan.py``         what is to be read, cut into shards; whether a folder holds the same, begun
``shard.py``        a list of slices → a shard and its sidecar
``children.py``     shards made in child processes; a crash costs one slice
``watch.py``        progress, speed, how long it will take
``duplicates.py``   near-duplicates, and the groups that no split may cut
``folds.py``        folds by group
``finish.py``       sidecars → table and manifest
==================== ==========================================================================================
"""

from ich_node.training.prepare.images import find_images
from ich_node.training.prepare.phantoms import find_phantoms
from ich_node.training.prepare.rsna import find_rsna
from ich_node.training.prepare.run import PrepareSettings, prepare
from ich_node.training.prepare.studies import CoarsePositives, find_studies

__all__ = [
    "CoarsePositives",
    "PrepareSettings",
    "find_images",
    "find_phantoms",
    "find_rsna",
    "find_studies",
    "prepare",
]
