"""Estimates from files: SKEL's parameters, and SMPL's, to which SKEL is fitted first (the two-stage baseline)."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from skelfit.bodies.model_set import ModelSet
from skelfit.config.pipeline import Pipeline
from skelfit.conversion.fitted_rows import RowFits, RowsToFit
from skelfit.conversion.row_fits import LabelFitter, fit_rows, labels_fit
from skelfit.conversion.run_fitter import label_kernels, make_fitter
from skelfit.fitting.backends.backend import compile_once
from skelfit.labels.label_batch import LabelBatch
from skelfit.protocols.estimates import (
    BAD_PREDICTION,
    NOT_FITTED,
    ChunkEstimates,
    RowFailure,
    SkelParameters,
    StageEstimate,
)
from skelfit.protocols.evaluated_bodies import EvaluatedBodies
from skelfit.protocols.figures import skel_hinges
from skelfit.protocols.prediction_reader import SkelPredictions, SmplPredictions
from skelfit.verification.measures.anatomy import smpl_hinges

Index = NDArray[np.int64]
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FitTime:
    """The time that a fit took, without compiling it."""

    people: int
    seconds: float
    device: str


class SkelEstimates:
    """Predicted SKEL bodies."""

    stages = ("SKEL",)

    def __init__(self, bodies: EvaluatedBodies, people: SkelPredictions, prediction: Index) -> None:
        """prediction: (N,) the index of the prediction of each label row."""
        self._bodies, self._people, self._prediction = bodies, people, prediction

    def of_rows(self, rows: Index) -> ChunkEstimates:
        """The people of some rows, which have a prediction. Raises ModelError."""
        index = self._prediction[rows]
        finite = self._people.finite[index]
        failures = [
            RowFailure(int(row), BAD_PREDICTION, "numbers that are not finite") for row in rows[~finite]
        ]
        rows, index = rows[finite], index[finite]
        people = self._people
        final = SkelParameters(people.poses[index], people.betas[index], people.female[index])
        stage = skel_stage(self._bodies, final)
        trans, cam_int = (None if v is None else v[index] for v in (people.trans, people.cam_int))
        stage = replace(stage, trans=trans, cam_int=cam_int)
        return ChunkEstimates(rows, (stage,), final, tuple(failures))


class FittedEstimates:
    """Predicted SMPL bodies, and the SKEL bodies that are fitted to them."""

    stages = ("SMPL, as predicted", "SKEL, fitted to it")

    def __init__(
        self,
        bodies: EvaluatedBodies,
        people: SmplPredictions,
        prediction: Index,
        pipeline: Pipeline,
        device: str,
    ) -> None:
        """Fits at once. Raises ModelError, ConfigError."""
        self._bodies, self._people, self._prediction = bodies, people, prediction
        self._fits, self.time = _fitted(
            bodies.models, people, np.unique(prediction[prediction >= 0]), pipeline, device
        )

    def of_rows(self, rows: Index) -> ChunkEstimates:
        """The people of some rows, which have a prediction. Raises ModelError."""
        fits, people = self._fits, self._people.people
        failures = tuple(self._failures(rows))
        failed = {failure.row for failure in failures}
        rows = np.array([row for row in rows.tolist() if row not in failed], np.int64)
        index = self._prediction[rows]
        genders = [people.gender[i] for i in index.tolist()]
        camera = people.cam_int[index].astype(np.float64) if self._people.has_camera else None
        smpl = StageEstimate(
            self._bodies.smpl(people.pose[index], people.betas[index], genders),
            smpl_hinges(people.pose[index].astype(np.float64)),
            None if camera is None else people.transl[index].astype(np.float64),
            camera,
        )
        final = SkelParameters(
            fits.poses[index].astype(np.float64), fits.betas[index].astype(np.float64), fits.female[index]
        )
        trans = None if camera is None else fits.trans[index].astype(np.float64)
        skel = replace(skel_stage(self._bodies, final), trans=trans, cam_int=camera)
        return ChunkEstimates(rows, (smpl, skel), final, failures)

    def _failures(self, rows: Index) -> Iterator[RowFailure]:
        for row, i in zip(rows.tolist(), self._prediction[rows].tolist(), strict=True):
            if bad := self._people.people.bad[i]:
                yield RowFailure(row, BAD_PREDICTION, bad)
            elif not self._fits.finite[i]:
                yield RowFailure(row, NOT_FITTED, "the fit is not finite")


def skel_stage(bodies: EvaluatedBodies, people: SkelParameters) -> StageEstimate:
    """The estimate of SKEL parameters, without a camera. Raises ModelError."""
    return StageEstimate(bodies.skel(people.poses, people.betas, people.female), skel_hinges(people.poses))


def _fitted(
    models: ModelSet, predictions: SmplPredictions, used: Index, pipeline: Pipeline, device: str
) -> tuple[RowFits, FitTime]:
    """The fits of those predictions that belong to a label row; the others have NaN."""
    people, stages = predictions.people, len(pipeline.fit.stages)
    compile_once(device, label_kernels(pipeline, people.gender, sequences=False), _log.warning)
    fitter = _fitter(models, pipeline, device)
    if len(used):  # what only a first fit does is no part of the time
        first = _rows_to_fit(people, used[:1])
        fit_rows(first, labels_fit(first, fitter), stages)
    chosen = _rows_to_fit(people, used)
    start = time.perf_counter()
    fits = fit_rows(chosen, labels_fit(chosen, fitter), stages)
    took = FitTime(int(chosen.good.sum()), time.perf_counter() - start, device)
    whole = RowFits.unfitted(len(people), stages)
    for name in vars(fits):
        getattr(whole, name)[used] = getattr(fits, name)
    return whole, took


def _rows_to_fit(people: LabelBatch, used: Index) -> RowsToFit:
    rows = RowsToFit.of(people)
    return RowsToFit(rows.gender[used], rows.good[used], rows.pose[used], rows.betas[used], rows.transl[used])


@lru_cache(maxsize=1)
def _fitter(models: ModelSet, pipeline: Pipeline, device: str) -> LabelFitter:
    """The fitter, kept for the next evaluation: to prepare it takes seconds."""
    return make_fitter(models, pipeline, device)
