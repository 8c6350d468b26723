"""The study of refinements: its figures agree with each other."""

from __future__ import annotations

from pathlib import Path

import pytest

from skelfit.bodies.model_set import ModelSet
from skelfit.config.pipeline import load_pipeline
from skelfit.resources.catalog import PIPELINES
from tools.studies import refine
from tools.studies.setup import Setup


@pytest.fixture(scope="module")
def setup(models: ModelSet) -> Setup:
    pipeline = load_pipeline(Path(PIPELINES.find("hmr-skel")))
    return Setup(models, pipeline, "cpu", 12, ("male",), None, lambda text: None)


@pytest.mark.soak
def test_errors_fall_and_the_baseline_ends_higher(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("SHAKES", (0.1, 0.2)), ("NOISES", (0.0, 2.0)), ("_ITERATIONS", 2), ("_COMPARED", 3)):
        monkeypatch.setattr(refine, name, value)
    records = refine.run(setup)
    tables = [r for r in records if "shake_rad" in r]
    assert [(r["kind"], r["shake_rad"], r["noise_px"]) for r in tables] == [
        *(("anchor", shake, noise) for shake in (0.1, 0.2) for noise in (0.0, 2.0)),
        *(("no anchor", shake, 2.0) for shake in (0.1, 0.2)),
    ]
    for r in tables:
        assert sum(r["statuses"].values()) == r["people"] == 12
        if r["kind"] == "anchor":
            assert all(r["after"][k]["mean"] < r["before"][k]["mean"] for k in ("px", "mpjpe_mm", "pve_mm"))
    # The more the labels are shaken, the further they are off; without noise, truths are met more nearly.
    assert tables[2]["before"]["mpjpe_mm"]["mean"] > tables[0]["before"]["mpjpe_mm"]["mean"]
    assert tables[0]["after"]["px"]["mean"] < tables[1]["after"]["px"]["mean"]
    solver, baseline = (r for r in records if "objective" in r)
    assert (solver["people"], baseline["people"]) == (12, 3)
    assert solver["objective_before"] == baseline["objective_before"]
    assert solver["objective"]["mean"] < baseline["objective"]["mean"] < baseline["objective_before"]["mean"]
    swaps = [r for r in records if "found" in r]
    assert len(swaps) == 4 and all(r["found"] > 0.5 and r["false"] < 0.1 for r in swaps)
    lines = refine.text(records)
    assert len(lines) == 1 + 6 + 1 + 1 + 4 + 1 + 1 + 2 + 1 + 1 + 3 * 7
    cameras = {(r["camera"], r["shaken"], r["noise_px"], r["off"]): r for r in records if "camera" in r}
    assert len(cameras) == 3 * (1 + 3 * 2)
    for labels in ((0.1, 2.0), (0.2, 0.0), (0.2, 2.0)):
        assert cameras["true camera", labels[0], labels[1], 0.0]["focal"]["max"] == 0.0
        for off in (-0.3, 0.0, 0.4):
            held, free = (cameras[kind, labels[0], labels[1], off] for kind in ("held", "estimated"))
            assert held["focal"]["mean"] == pytest.approx(abs(off), abs=1e-3)
            assert free["refined"] == held["refined"] == 12
            if off:  # what people tell of their camera is little, but not nothing
                assert free["focal"]["mean"] < held["focal"]["mean"]
                assert free["depth"]["mean"] < held["depth"]["mean"]
