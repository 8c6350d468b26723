"""The study of the ground: how its figures count what was found, and a short run of labels and fits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from skelfit.bodies.model_set import ModelSet
from skelfit.bodies.skel import SkelModel
from skelfit.config.pipeline_choice import chosen_pipeline
from skelfit.fitting.fitter import Fitter
from skelfit.verification.measures.sole_poser import SolePoser
from tools.studies.ground import f1, matches, noisy, of_fit, of_label, text
from tools.studies.planted_feet import PlantedBody, planted_walk


def test_events_are_matched_to_the_nearest_true_one() -> None:
    assert matches(np.array([0.31, 1.5]), np.array([0.30, 1.0])) == [pytest.approx(10)]
    assert matches(np.array([]), np.array([1.0])) == []


def test_f1_of_contacts() -> None:
    found, true = np.array([True, True, False, False]), np.array([True, False, True, False])
    assert f1(found, true) == 0.5 and f1(true, true) == 1


@pytest.mark.soak
def test_a_short_walk_from_its_labels_and_fits(models: ModelSet) -> None:
    walk = planted_walk(PlantedBody(models), 1.5, 30.0)
    label = of_label(PlantedBody(models), walk, 0.0, 0)
    fitter = Fitter(models, chosen_pipeline().fit, "cpu")
    poser = SolePoser(SkelModel(models.skel_of("male"), dtype=torch.float64))
    fit = of_fit(fitter, poser, "neutral", noisy(walk.motion, 2.0, 0), walk)
    for found in (label, fit):
        assert found["f1_feet"] > 0.95 and abs(found["floor_mm"]) < 5 and found["wrong_events"] == 0
    records = [{"motion": "w", "rate": 30.0, "noise_mm": 0.0, "of": "fits"} | fit]
    assert "us of CPU per frame" in text(records)[-1]
    late = replace(walk, strikes={side: times - 0.05 for side, times in walk.strikes.items()})
    moved = of_label(PlantedBody(models), late, 0.0, 0)
    assert moved["foot_strike_ms"] == pytest.approx(label["foot_strike_ms"] + 50)
