"""One series of an archive → its row. Works in this process, and as a part of a pool of many."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ich_node import __version__
from ich_node.archive_scoring.unpacking import on_disk
from ich_node.decode import DecodeLimits, DecoderPool
from ich_node.decode.instance import DeclineSlice
from ich_node.errors import IchNodeError
from ich_node.model.engine import INT8, EngineName
from ich_node.model.site_thresholds import SiteThresholds
from ich_node.pipeline import Model, open_model
from ich_node.records import HEMORRHAGE_CLASSES, ArchivedFile, ArchivedSeries, BadFile, EligibilityRules, ModelIdentity
from ich_node.score_table import ScoreRow
from ich_node.scoring import ScoredSeries, as_json, score_paths


@dataclass(frozen=True, slots=True)
class ScoringSetup:
    """Everything that scoring needs but the images; it travels to other machines."""

    model_directory: Path
    engine: EngineName
    threads: int
    show_untrained: bool
    public_key: Path | None
    site_thresholds: SiteThresholds | None
    limits: DecodeLimits
    decline: DeclineSlice
    rules: EligibilityRules
    decoders: int
    largest_member: int
    """Bytes of a member of a zip file, unpacked."""

    def digest(self, model_sha256: str) -> str:
        """Digest what decides what a series scores. Of engines that agree it does not matter which; INT8 is none."""
        site = b"" if self.site_thresholds is None else self.site_thresholds.to_bytes()
        of_the_model = (model_sha256, site, self.show_untrained, self.engine == INT8)
        said = (__version__, *of_the_model, self.rules, self.limits, self.largest_member)
        return hashlib.sha256(repr(said).encode()).hexdigest()


def fingerprint(setup_digest: str, files: Sequence[ArchivedFile]) -> str:
    """Digest setup and files: what was scored under the same needs no scoring again."""
    digest = hashlib.sha256(setup_digest.encode())
    for one in files:
        digest.update(
            repr((one.path, one.member, one.size, one.changed_ns, one.checksum)).encode("utf-8", "surrogateescape")
        )
    return digest.hexdigest()


@contextmanager
def open_scorer(setup: ScoringSetup, unpack_in: Path | None = None) -> Iterator[SeriesScorer]:
    """Open the model, and start decoding children.

    Raises:
        ModelError: the model cannot be used.
    """
    with DecoderPool(setup.limits, setup.decline, setup.decoders) as decoder:
        model = open_model(
            setup.model_directory,
            setup.engine,
            threads=setup.threads,
            show_untrained=setup.show_untrained,
            public_key=setup.public_key,
            site_thresholds=setup.site_thresholds,
        )
        yield SeriesScorer(setup, model, decoder, unpack_in)


class SeriesScorer:
    """A model and decoding children, ready to score.

    Args:
        unpack_in: folder that members of zip files are unpacked into; None: the system's for temporary files.
    """

    def __init__(self, setup: ScoringSetup, model: Model, decoder: DecoderPool, unpack_in: Path | None = None) -> None:
        self.decoder = decoder
        self._setup = setup
        self._model = model
        self._unpack_in = unpack_in

    @property
    def identity(self) -> ModelIdentity:
        return self._model.identity

    def score(self, series: ArchivedSeries) -> ScoreRow:
        """Score one series.

        Raises:
            IchNodeError: model, processor or disk failed. What a series itself does wrong is in its row.
        """
        try:
            return self._score(series)
        except IchNodeError:
            raise
        except Exception as error:  # noqa: BLE001 - a broad catch (docs/architecture.md): a poison series stops no other
            return failed_row(series, self.identity, f"scoring failed ({type(error).__name__})")

    def _score(self, series: ArchivedSeries) -> ScoreRow:
        if not series.files:
            why = series.lost[0].why if series.lost else "it has no files"
            return failed_row(series, self.identity, why)
        mine = (series.study_instance_uid, series.series_instance_uid)
        with on_disk(series.files, self._unpack_in, self._setup.largest_member) as (names, refused):
            scores = score_paths(
                list(names),
                self._model,
                self.decoder,
                lambda _done, _all: None,
                self._setup.rules,
                {mine: len(refused) + series.not_received},
            )
        found = [one for one in scores.series if (one.study_instance_uid, one.series_instance_uid) == mine]
        unread = [*refused, *(BadFile(names[one.path], one.why) for one in scores.unread)]
        return _row(series, found[0], self._model, unread)


def failed_row(series: ArchivedSeries, model: ModelIdentity, why: str, unread: Sequence[BadFile] = ()) -> ScoreRow:
    """Say that a series could not be scored; a later run tries again."""
    said = {"analysed": False, "not_analysed_reason": why, "complete": False, "test_model": False, "failed": True}
    return said | {"slices": []} | _about(series, unread) | _of_model(model)


def _row(series: ArchivedSeries, scored: ScoredSeries, model: Model, unread: Sequence[BadFile]) -> ScoreRow:
    entry = as_json(scored, model)
    shares, limits = entry.pop("probabilities") or {}, entry.pop("thresholds") or {}
    entry |= {f"probability_{name}": shares.get(name) for name in HEMORRHAGE_CLASSES}
    for name in HEMORRHAGE_CLASSES:
        entry |= {f"threshold_{end}_{name}": limits[name][end] if limits else None for end in ("low", "high")}
    entry["slices"] = [_slice(one) for one in entry["slices"]]
    del entry["model"]
    return entry | {"failed": False} | _about(series, unread) | _of_facts(scored) | _of_model(model.identity)


def _slice(one: Mapping[str, Any]) -> dict[str, Any]:
    """Flat, as a column of Parquet is quickest to read."""
    return {name: value for name, value in one.items() if name != "probabilities"} | dict(one["probabilities"])


def _about(series: ArchivedSeries, unread: Sequence[BadFile]) -> ScoreRow:
    return {
        "study_instance_uid": series.study_instance_uid,
        "series_instance_uid": series.series_instance_uid,
        "fingerprint": series.fingerprint,
        "station_name": series.station_name,
        "sex": series.sex,
        "files": len(series.files),
        "not_received": series.not_received,
        "unread": [{"name": one.name, "why": one.why} for one in (*series.lost, *unread)],
    }


def _of_facts(scored: ScoredSeries) -> ScoreRow:
    if not scored.facts:
        return {}
    first = scored.facts[0]
    return {
        "slice_thickness_mm": first.slice_thickness_mm,
        "age_years": first.patient_age_years,
        "convolution_kernel": first.convolution_kernel,
    }


def _of_model(model: ModelIdentity) -> ScoreRow:
    return {"model_name": model.name, "model_version": model.version, "model_sha256": model.sha256}
