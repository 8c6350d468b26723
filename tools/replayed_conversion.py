"""`skelfit convert` with a fitter that takes no time, in this process or in Dask's workers.

The answers for the first people of a label file are computed once in each process, and given again for every row that
has one of their poses.
"""

from __future__ import annotations

from functools import lru_cache

import torch

import skelfit.api.convert_dataset
from skelfit.bodies.model_set import open_models
from skelfit.cli import main as skelfit_main
from skelfit.config.pipeline import load_pipeline
from skelfit.conversion.batch_fit import convert_batch
from skelfit.conversion.batch_job import BatchJob
from skelfit.conversion.row_fits import LabelFitter
from skelfit.conversion.run_fitter import make_fitter
from skelfit.conversion.shard_batch import ShardBatch
from skelfit.labels.label_store import read_rows
from skelfit.resources.catalog import PIPELINES
from tools.studies.job_speed import ReplayedFitter

DISTINCT = 250  # people, who come over and over


def replayed_work(batch: ShardBatch, fitter: LabelFitter | None = None) -> BatchJob:
    """The work of a conversion, with the replayed fitter in place of any other."""
    return convert_batch(batch, _replayed(batch.run.labels[0].store))


@lru_cache(maxsize=1)
def _replayed(store: str) -> ReplayedFitter:
    labels = read_rows(store, 0, DISTINCT)
    fitter = make_fitter(open_models(), load_pipeline(PIPELINES.find("hmr-skel")), "cpu")
    pose, betas, transl = (torch.tensor(a) for a in (labels.pose, labels.betas, labels.transl))
    return ReplayedFitter.of(labels.pose, fitter.fit("neutral", pose, betas, transl))


def main() -> None:
    """The command."""
    skelfit.api.convert_dataset.convert_batch = replayed_work  # type: ignore[attr-defined]
    skelfit_main()


if __name__ == "__main__":
    main()
