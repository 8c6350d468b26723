"""Operations and bytes of fits: `python tests/support/fit_work.py FOLDER PEOPLE`.

Prints JSON: MFLOP and MB per person for each kind of poses, mean and maximum, and the mean by kernel. FOLDER is for the
compiled kernels. Each person is fitted alone.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path

import kernel_work

from skelfit.benchmark.device.launch_counter import Recording, recording
from skelfit.benchmark.fit_speed import make_labels
from skelfit.bodies.model_set import open_models
from skelfit.config.pipeline import load_pipeline
from skelfit.fitting.backends.backend import make_backend
from skelfit.fitting.fitter import Fitter
from skelfit.resources.catalog import PIPELINES


class _WorkByKernel:
    """Adds up the counts of each kernel."""

    def __init__(self) -> None:
        self.flops: dict[str, int] = defaultdict(int)
        self.moved: dict[str, int] = defaultdict(int)
        self.before = kernel_work.counted()
        self.backend: Recording = recording(
            make_backend("cpu", lanes=1), kernel_work.begin_launch, self.launched
        )

    def launched(self, kernel: str) -> None:
        """After each launch."""
        now = kernel_work.counted()
        self.flops[kernel] += now.flops - self.before.flops
        self.moved[kernel] += now.moved - self.before.moved
        self.before = now


def main(folder: str, number: str) -> None:
    """Fit people one by one and print the counts."""
    people = int(number)
    kernel_work.start(Path(folder))
    count = _WorkByKernel()
    fitter = Fitter(open_models(), load_pipeline(PIPELINES.find("hmr-skel")).fit, backend=count.backend)
    fitter.prepare("neutral")
    report = {}
    for poses, labels in make_labels(people, "neutral").items():
        count.flops.clear()
        count.moved.clear()
        persons = []
        for i in range(people):
            before = kernel_work.counted()
            one = slice(i, i + 1)
            fitter.fit("neutral", labels.pose[one], labels.betas[one], labels.transl[one])
            now = kernel_work.counted()
            persons.append((now.flops - before.flops, now.moved - before.moved))
        assert kernel_work.counted().lost == 0
        flops, moved = zip(*persons, strict=True)
        report[poses] = {
            "mflop": {"mean": sum(flops) / people / 1e6, "most": max(flops) / 1e6},
            "mbyte": {"mean": sum(moved) / people / 1e6, "most": max(moved) / 1e6},
            "mflop_by_kernel": {name: value / people / 1e6 for name, value in count.flops.items()},
            "mbyte_by_kernel": {name: value / people / 1e6 for name, value in count.moved.items()},
        }
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main(*sys.argv[1:])
