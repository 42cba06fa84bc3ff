"""``make torture``: kills and power cuts by the hundred, counted. Ends with 1 where a promise did not hold."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path

from tests.torture.cuts import CutCampaign, CutTally, record
from tests.torture.fork_server import ForkServer, build_shim
from tests.torture.kills import KillCampaign, Tally
from tests.torture.outsiders import HEADINGS
from tests.torture.peers import ALERTS, REPORTS
from tests.torture.replay import no_sync, syncs_of_normal
from tests.torture.strikes import every_label

_REAL = "with the real network"


def main() -> int:
    options = _options()
    seed = options.seed if options.seed is not None else int(time.time())
    print(f"seed {seed}")
    with _folder(keep=options.keep) as folder, ForkServer(build_shim(folder)) as server:
        faults = _kills(server, folder, options, seed) if options.kills else []
        faults += _real(server, folder, options, seed) if options.real else []
        faults += _cuts(server, folder, options, seed) if options.cuts else []
    for fault in faults:
        print(f"VIOLATION: {fault[:2000]}")
    print("every promise held" if not faults else f"{len(faults)} violations; repeat with --seed {seed} --keep")
    return 1 if faults else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make torture", description=__doc__)
    parser.add_argument("--kills", type=int, default=2000, help="with a stub of the network (KILLS=)")
    parser.add_argument("--real", type=int, default=10, help="kills with an untrained bundle on torch (REAL=)")
    parser.add_argument("--cuts", type=int, default=500, help="power cuts (CUTS=)")
    parser.add_argument("--jobs", type=int, default=3, help="nodes at the same time (JOBS=)")
    parser.add_argument("--seed", type=int, help="of what is chosen at random (SEED=)")
    parser.add_argument("--keep", action="store_true", help="keep the nodes with which something was wrong")
    return parser.parse_args()


@contextmanager
def _folder(*, keep: bool) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="torture-"))
    try:
        yield folder
    finally:
        if keep:
            print(f"nodes with which something was wrong are in {folder}")
        else:
            shutil.rmtree(folder)


def _side_by_side(works: Sequence[Callable[[], None]], watch: Callable[[], str]) -> None:
    """Do all of them at once; one that breaks breaks the whole, once the others have ended."""
    with ThreadPoolExecutor(len(works)) as pool:
        running = [pool.submit(work) for work in works]
        while wait(running, timeout=30).not_done:
            print(f"  {watch()}", flush=True)
    for one in running:
        one.result()


def _kills(server: ForkServer, folder: Path, options: argparse.Namespace, seed: int) -> list[str]:
    tally, began = Tally(), time.monotonic()
    campaigns = [
        KillCampaign(server, folder / f"kills-{job}", tally, seed + job, lambda: tally.kills >= options.kills)
        for job in range(options.jobs)
    ]
    _side_by_side([one.run for one in campaigns], lambda: f"{tally.kills} kills, {len(tally.violations)} violations")
    _print_kills(tally, time.monotonic() - began)
    never = sorted(set(every_label()) - set(tally.provoked)) if options.kills >= 300 else []
    return tally.violations + [f"never provoked: {label}" for label in never]


def _print_kills(tally: Tally, seconds: float) -> None:
    print(
        f"\n{'killed at':44} {'times':>6} {'lost':>5} {'doubled':>8} {'wrong':>6} {'longest recovery':>17} {HEADINGS}"
    )
    for label in sorted(tally.provoked):
        longest = f"{tally.recovery_s[label]:.1f} s" if tally.recovery_s.get(label) else ""
        print(
            f"{label:44} {tally.provoked[label]:6} {tally.lost[label]:5} {tally.doubled[label]:8} "
            f"{tally.wrong[label]:6} {longest:>17} {tally.seen.columns(label)}".rstrip()
        )
    longest_s = max(tally.seen.outage_s.values(), default=0.0)
    print(f"somebody at another address had to wait for an answer for {longest_s:.1f} s at most")
    print(
        f"{tally.kills} kills at {len(tally.provoked)} places in {seconds:.0f} s; {tally.objects} objects answered "
        f"with success and found again; {tally.reports} reports and {tally.alerts} alerts arrived, and "
        f"{tally.repeats} repeats of them, each the same"
    )


def _real(server: ForkServer, folder: Path, options: argparse.Namespace, seed: int) -> list[str]:
    """A few kills with the real network: an untrained bundle, its worker a process with torch and decoding children."""
    from ich_node.model.untrained import make_untrained_bundle
    from ich_node.phantom import LESIONS, PhantomSettings, draw_volume

    heads = [
        draw_volume(PhantomSettings(lesion=one, slices=8, rows=64, slice_spacing_mm=16)) for one in (None, *LESIONS)
    ]
    make_untrained_bundle(folder / "tiny", heads, backbone="test_resnet", size_px=64, name="tiny")
    tally, began = Tally(), time.monotonic()

    def enough() -> bool:
        return sum(number for label, number in tally.provoked.items() if label.startswith("work")) >= options.real

    KillCampaign(server, folder / "real", tally, seed, enough, bundle=folder / "tiny").run()
    print(f"\n{_REAL}:", end="")
    _print_kills(tally, time.monotonic() - began)
    return tally.violations


def _cuts(server: ForkServer, folder: Path, options: argparse.Namespace, seed: int) -> list[str]:
    jobs = max(1, min(options.jobs, options.cuts))
    recordings = [record(server, folder / f"recording-{job}") for job in range(jobs)]
    tally, began = CutTally(), time.monotonic()
    shares = [options.cuts // jobs + (job < options.cuts % jobs) for job in range(jobs)]
    works = [
        lambda job=job: CutCampaign(server, recordings[job], folder / f"cuts-{job}", tally, seed + 10_000 * job).run(
            recordings[job].places(shares[job], seed + job)
        )
        for job in range(jobs)
    ]
    _side_by_side(works, lambda: f"{tally.cuts} power cuts, {len(tally.violations)} violations")
    print(f"\n{'power failed':44} {'times':>6}")
    for kind, number in sorted(tally.of_kind.items()):
        print(f"{kind:44} {number:6}")
    print(
        f"{tally.cuts} power cuts in {time.monotonic() - began:.0f} s: lost {tally.lost}, doubled {tally.doubled}, "
        f"wrong {tally.wrong}; before them {tally.answered} objects had been answered with success, "
        f"{tally.delivered} reports delivered, {tally.told} alerts told"
    )
    faults = list(tally.violations)
    first = recordings[0]
    controls = {
        "fsync does nothing": (no_sync, first.after_notes("answers.jsonl")[5::5][:10], False),
        "synchronous=NORMAL": (syncs_of_normal, first.after_notes(REPORTS, ALERTS)[:10], True),
    }
    for name, (counts, places, settles) in controls.items():
        control = CutTally()
        CutCampaign(server, first, folder / f"control-{counts.__name__}", control, seed).run(
            places, counts, settles=settles
        )
        print(f"control, {name}: {control.caught} of {control.cuts} cuts were caught")
        if not control.caught:
            faults.append(f"the check is blind: it did not notice that {name}")
    return faults


if __name__ == "__main__":
    sys.exit(main())
