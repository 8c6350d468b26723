"""Kernels whose threads run in the reverse order: what a barrier is missing for, or reads its own phase, then shows.

The threads of a block are played by fibers that run one after the other, each to the next barrier. In the usual order
an item finds what those before it wrote, as on one thread; in the reverse order it does not.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pytest
import torch
from backends import assert_same_bits

from skelfit.benchmark.fit_speed import make_labels
from skelfit.bodies.model_set import ModelSet
from skelfit.bodies.skel import SkelModel
from skelfit.config.pipeline import load_pipeline
from skelfit.fitting.backends import kernels
from skelfit.fitting.backends.backend import Backend, make_backend
from skelfit.fitting.backends.kernels import _Kernels
from skelfit.fitting.fitter import Fitter
from skelfit.fitting.mesh_fitter import MeshFitter
from skelfit.resources.catalog import PIPELINES

pytestmark = pytest.mark.soak  # all kernels compile twice for it
THREADS = 64  # as on a GPU: most items have one of their own
_TID = re.compile(r"^( +)([gc], t = wp\.tid\(\))$", re.MULTILINE)


@dataclass(frozen=True)
class ReversedThreads(Backend):
    """One person per group, by threads in the reverse order."""

    package: Any = None

    @property
    def kernels(self) -> Any:
        """The kernels with reversed threads."""
        return self.package


@pytest.fixture(scope="module")
def reversed_threads(tmp_path_factory: pytest.TempPathFactory) -> ReversedThreads:
    folder, count = tmp_path_factory.mktemp("kernels"), 0
    for file in Path(kernels.__file__).parent.glob("*.py"):
        text, replaced = _TID.subn(r"\1\2\n\1t = wp.block_dim() - 1 - t", file.read_text(encoding="utf-8"))
        (folder / file.name).write_text(text, encoding="utf-8")
        count += replaced
    assert count >= 8
    package = _Kernels("skelfit.fitting.backends.kernels.reversed_1")
    package.__path__ = [str(folder)]
    package.LANES = 1
    sys.modules[package.__name__] = package
    base = make_backend("cpu", 1, THREADS)
    return ReversedThreads(**{f.name: getattr(base, f.name) for f in fields(Backend)}, package=package)


def test_the_order_of_threads_changes_no_bit(reversed_threads: ReversedThreads, models: ModelSet) -> None:
    config = load_pipeline(PIPELINES.find("hmr-skel")).fit
    labels = make_labels(2, "neutral")["extreme"]
    usual = make_backend("cpu", 1, 1)
    expected, replaced = (
        Fitter(models, config, backend=b).fit("neutral", labels.pose, labels.betas, labels.transl)
        for b in (usual, reversed_threads)
    )
    assert_same_bits(replaced, expected)
    # And with free betas beside a free root.
    skel = SkelModel(models.skel_of("male"))
    out = skel.forward(skel.shape(expected.betas), expected.poses, expected.trans)
    one, other = (MeshFitter(skel, config, backend=b).fit(out.vertices) for b in (usual, reversed_threads))
    for f in fields(one):
        assert torch.equal(getattr(one, f.name), getattr(other, f.name)), f.name
