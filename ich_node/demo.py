"""``make demo``: the whole node beside a small PACS, one study sent, and what became of it."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError
from rich.console import Console

from ich_node.association import Patience
from ich_node.config import Config, load_config
from ich_node.database import open_database
from ich_node.deliver import echo
from ich_node.errors import StartError, TransientError
from ich_node.pacs import SmallPacs, send_study
from ich_node.phantom import PhantomSettings, write_series
from ich_node.queries import StudyStatus, node_status
from ich_node.records import OPEN_SERIES, Destination, SeriesState

_LONGEST_S: Final = 300.0
_WIDTH: Final = 26
_MARK: Final = ".ich-node-demo"

_CONFIG: Final = """\
[node]
bind = "127.0.0.1"
port = {port}
state_directory = "{state}"
log_level = "INFO"
[receiver]
allow_any = true
reserve_mib = 64
[model]
directory = "{model}"
show_findings_of_untrained_model = {test_model}
[web]
enabled = true
port = {web_port}
[[destination]]
name = "pacs"
ae_title = "PACS"
host = "127.0.0.1"
port = {pacs_port}
"""


@dataclass(frozen=True, slots=True)
class DemoSettings:
    """What to show, and where."""

    folder: Path
    model: Path
    data: Path | None = None
    """Real DICOM files; a synthetic head CT where it is None."""
    lesion: str = "intraparenchymal"
    test_model: bool = False


def run_demo(settings: DemoSettings, console: Console) -> int:
    """Start node and PACS, send a study, wait for its report, show everything.

    Raises:
        StartError: the node did not come up, or no study was concluded in time.
    """
    clear_folder(settings.folder)
    files = _study(settings, console)
    with SmallPacs(settings.folder / "pacs") as pacs:
        config_path = _write_config(settings, pacs.port)
        config = load_config(config_path)
        console.print(
            f"node ICH_NODE on port {config.node.port}, small PACS on port {pacs.port}; log: {_log(settings)}"
        )
        with _running_node(settings, config_path, config):
            sent_at = _send(files, config, console)
            study = _wait(config, files, console)
    _show(study, sent_at, settings, pacs, config, config_path, console)
    return 0 if study.deliveries and all(one.state in ("DELIVERED", "COMMITTED") for one in study.deliveries) else 1


def clear_folder(folder: Path) -> None:
    """Empty the folder of an earlier demo, but for the network that it converted for this processor.

    Raises:
        StartError: the folder holds something else.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()) and not (folder / _MARK).exists():
        raise StartError(
            f"{folder} holds other files than those of an earlier demo; name a folder that is empty or new"
        )
    (folder / _MARK).touch()
    for part, kept in ((folder, ("state", _MARK)), (folder / "state", ("cache",))):
        for path in part.iterdir() if part.is_dir() else ():
            if path.name not in kept:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def _study(settings: DemoSettings, console: Console) -> list[Path]:
    if settings.data is None:
        files = write_series(settings.folder / "sent", PhantomSettings(lesion=settings.lesion))
        console.print(f"synthetic head CT with {settings.lesion} hemorrhage: {len(files)} slices")
        return files
    files = [path for path in sorted(settings.data.rglob("*")) if path.is_file() and _is_dicom(path)]
    if not files:
        raise StartError(f"{settings.data}: no DICOM file there")
    console.print(f"{settings.data}: {len(files)} DICOM files")
    return files


def _is_dicom(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def _write_config(settings: DemoSettings, pacs_port: int) -> Path:
    path = settings.folder / "ich-node.toml"
    text = _CONFIG.format(
        port=_free_port(),
        state=(settings.folder / "state").resolve(),
        model=settings.model.resolve(),
        pacs_port=pacs_port,
        web_port=_free_port(),
        test_model=str(settings.test_model).lower(),
    )
    path.write_text(text)
    return path


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _log(settings: DemoSettings) -> Path:
    return settings.folder / "node.log"


@contextmanager
def _running_node(settings: DemoSettings, config_path: Path, config: Config) -> Iterator[None]:
    command = [sys.executable, "-m", "ich_node", "serve", "--config", str(config_path)]
    with _log(settings).open("wb") as log:
        node = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=log)
        try:
            _wait_until_up(node, config, _log(settings))
            yield
        finally:
            node.terminate()
            node.wait()


def _wait_until_up(node: subprocess.Popen[bytes], config: Config, log: Path) -> None:
    """Wait for the receiver to answer and the worker to have its model."""
    itself = Destination("node", config.node.ae_title, "127.0.0.1", config.node.port)
    deadline = time.monotonic() + _LONGEST_S
    while time.monotonic() < deadline:
        if node.poll() is not None:
            raise StartError(f"the node ended; its last words:\n{log.read_text()[-2000:]}")
        if "model ready" in log.read_text():
            try:
                echo(itself, "DEMO", Patience(2.0, 2.0))
            except TransientError:
                continue
            return
        time.sleep(0.2)
    raise StartError(f"the node did not come up; see {log}")


def _send(files: list[Path], config: Config, console: Console) -> float:
    began = time.time()
    accepted = send_study(files, "127.0.0.1", config.node.port, config.node.ae_title)
    seconds = time.time() - began
    console.print(f"sent {accepted} of {len(files)} objects in {seconds:.1f} s; waiting for the report ...")
    return began


def _wait(config: Config, files: list[Path], console: Console) -> StudyStatus:
    """Wait until every series is settled and every report delivered."""
    database = open_database(config.database_url)
    uid = _study_uid(files)
    deadline = time.monotonic() + _LONGEST_S
    with console.status("receiving, scoring, reporting"):
        while time.monotonic() < deadline:
            found = node_status(database, uid=uid).studies
            if found and _is_settled(found[0]):
                database.close()
                return found[0]
            time.sleep(0.1)
    raise StartError("no report in time; see the log")


def _study_uid(files: list[Path]) -> str:
    for path in files:
        try:
            return str(dcmread(path, stop_before_pixels=True, specific_tags=["StudyInstanceUID"]).StudyInstanceUID)
        except (InvalidDicomError, AttributeError):
            continue
    raise StartError("no file names its study")


def _is_settled(study: StudyStatus) -> bool:
    still_open = any(one.state in OPEN_SERIES for one in study.series)
    unsent = any(one.state in ("PENDING", "SENDING") for one in study.deliveries)
    expects_report = study.revision > 0 or not any(one.state == SeriesState.CONCLUDED for one in study.series)
    return not still_open and not unsent and expects_report and (bool(study.deliveries) or study.reason is None)


def _show(
    study: StudyStatus, sent_at: float, settings: DemoSettings, pacs: SmallPacs, config: Config, config_path: Path,
    console: Console,
) -> None:  # fmt: skip
    console.rule("answer")
    console.print(f"[bold]{study.outcome}[/bold]")
    for series in study.series:
        console.print(f"series {series.state}, {series.slices} slices, complete: {series.complete} {series.why}")
        for name, probability in (series.finding or {}).get("probabilities", {}).items():
            console.print(
                f"  {name:{_WIDTH}} {probability:6.1%}  {series.finding['presence'][name] if series.finding else ''}"
            )
    console.rule("time of each step")
    _show_steps(study, sent_at, console)
    console.rule("where to look")
    for delivery in study.deliveries:
        stored = pacs.path_of(delivery.sop_instance_uid or "")
        console.print(f"{delivery.what} for {delivery.destination}: {delivery.state} {delivery.error}")
        if stored is not None:
            console.print(f"  in the PACS: {stored}", soft_wrap=True)
            _show_object(stored, console)
    console.print(f"state of the node: {settings.folder / 'state'}; its log: {_log(settings)}")
    _name_the_page(study, config, config_path, console)
    console.print("research software, not a medical device")


def command_as_called() -> str:
    """Name the command so that it can be typed: from a clone it is on no PATH."""
    return sys.argv[0] if Path(sys.argv[0]).name == "ich-node" else "ich-node"


def _name_the_page(study: StudyStatus, config: Config, config_path: Path, console: Console) -> None:
    """Say where the study is shown. The node has ended by now, and nobody has an account: both take a command."""
    console.print("its page, with images and scores, once somebody may log in and the pages are served again:")
    for line in (
        f"{command_as_called()} user add NAME --role reader --config {config_path}",
        f"{command_as_called()} web --config {config_path}",
        f"http://127.0.0.1:{config.web.port}/studies/{study.study_instance_uid}",
    ):
        console.print(f"  {line}", soft_wrap=True, highlight=False)


def _show_steps(study: StudyStatus, sent_at: float, console: Console) -> None:
    steps = [(at, name) for series in study.series for name, at in (series.steps or {}).items()]
    steps += [(one.finished_at, f"{one.what} in {one.destination}") for one in study.deliveries if one.finished_at]
    for at, name in sorted(steps):
        console.print(f"  {name:{_WIDTH}} {at - sent_at:7.2f} s after the first byte was sent")


def _show_object(path: Path, console: Console) -> None:
    """Show the report's conclusion, as its reader will meet it; of other objects, how to look at them."""
    report = dcmread(path)
    if report.Modality == "OT":
        console.print("  as a picture: dcmj2pnm +on FILE picture.png, or any DICOM viewer")
    if report.Modality != "SR":
        return
    for item in _items(report):
        if item.get("ValueType") == "TEXT" and item.ConceptNameCodeSequence[0].CodeValue == "121077":
            console.print(f"  conclusion: {item.TextValue}")
    console.print("  the whole report: dsrdump +U8 FILE, or dsr2html +U8 FILE report.html")


def _items(item: Dataset) -> Iterator[Dataset]:
    for child in getattr(item, "ContentSequence", ()):
        yield child
        yield from _items(child)
