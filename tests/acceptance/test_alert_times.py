"""When people hear of a finding at the pace of a scanner: before the last slice, and beside the report."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

import pytest

from ich_node.decode import DecoderPool
from ich_node.pipeline import Model
from tests.integration.test_early_alerts import WHOLE, site_with_a_worklist, statuses
from tests.integration.test_viewer_objects_sent import says_positive  # noqa: F401 - a fixture
from tests.running import wait_for

SLICES_PER_S = 3.0


@pytest.mark.slow
def test_a_positive_study_at_the_pace_of_a_scanner(
    tmp_path: Path,
    says_positive: Model,  # noqa: F811 - the fixture
    decoder: DecoderPool,
) -> None:
    series = {"quiet_s": 1.0, "max_wait_s": 30.0}
    with site_with_a_worklist(tmp_path, says_positive, decoder, series=series) as (site, worklist):
        stop = threading.Event()
        deliverer = threading.Thread(target=site.node.deliverer.run, args=(stop,))
        deliverer.start()
        try:
            uid, files = site.head(**WHOLE)
            for file in files:
                site.send([file])
                last_slice = time.time()
                time.sleep(1 / SLICES_PER_S)
            wait_for(lambda: len(worklist.heard) == 2, "both alerts", 30)
            wait_for(lambda: site.reports(uid), "the report", 30)
        finally:
            stop.set()
            deliverer.join()
        (study,) = site.node.status(uid).studies
        delivered = study.deliveries[0].finished_at
        assert delivered is not None
        early, final = (one["at"] for one in worklist.heard)
        sys.stdout.write(
            f"\nfrom the last slice: preliminary alert {early - last_slice:+.2f} s, report in the PACS "
            f"{delivered - last_slice:+.2f} s, final alert {final - last_slice:+.2f} s\n"
        )
        assert statuses(worklist) == ["P", "F"]
        assert early < last_slice
