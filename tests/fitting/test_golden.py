"""The results of each class of processors: the same in any batch, and those recorded for this algorithm version."""

from __future__ import annotations

import dataclasses
import json
import math
from collections import Counter
from typing import Any

import pytest
import torch
from golden_fit import (
    CAPABILITIES,
    KINDS,
    LABELS,
    NATIVE,
    RESULTS_CHANGED,
    atypical,
    constants,
    fit_config,
    read_people,
    run,
)
from label_tensors import labels_from
from torch.utils._python_dispatch import TorchDispatchMode

from skelfit.bodies.model_set import ModelSet
from skelfit.config.fit_settings import (
    BranchConfig,
    FitConfig,
    LocatorConfig,
    PassConfig,
    RestartConfig,
    SolverConfig,
)
from skelfit.conversion.run_plan import ALGORITHM_VERSION
from skelfit.fitting.fitter import Fitter


# The other targets take a minute or two each to compile, and are left to `make soak`.
@pytest.mark.parametrize("target", [NATIVE, *(pytest.param(t, marks=pytest.mark.soak) for t in CAPABILITIES)])
def test_results_are_the_same_in_any_batch_and_those_recorded(target: str) -> None:
    """The same bits in batches of 1, 7, 20 and 512, in another order, by one thread and by two.

    On a processor with a record: the recorded bits. Elsewhere: as close to the record as processors are to each other.
    """
    if target != NATIVE and not CAPABILITIES[target].here:
        pytest.skip(f"this processor does not have all of {target}")
    recorded = json.loads(KINDS.read_text())
    assert recorded["algorithm"] == ALGORITHM_VERSION, (
        "record the results: python tests/support/golden_fit.py --record"
    )
    result = run(target, "--batches")
    assert result["batches"] == []
    if digest := recorded["kinds"].get(result["kind"]):
        assert result["digest"] == digest, f"{result['kind']}: {RESULTS_CHANGED}"
    else:
        assert atypical(result["deviations"]) == [], f"{result['kind']}: {RESULTS_CHANGED}"


def test_constants_are_those_recorded() -> None:
    """Some act on so few people that none of the recorded people shows them."""
    recorded, current = Counter(json.loads(KINDS.read_text())["constants"]), Counter(constants())
    assert recorded == current, (
        f"only recorded: {sorted(recorded - current)}; only now: {sorted(current - recorded)}. "
        "If that changes anyone's result, raise ALGORITHM_VERSION in skelfit/conversion/run_plan.py and run: "
        "python tests/support/golden_fit.py --record; else run it with --constants"
    )


class MatrixProducts(TorchDispatchMode):
    """Records the shapes of all matrix products."""

    def __init__(self) -> None:
        super().__init__()
        self.columns: set[int] = set()
        self.batched: set[int] = set()

    def __torch_dispatch__(
        self, operation: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        shapes = [x.shape for x in args if isinstance(x, torch.Tensor)]
        name = operation._schema.name.removeprefix("aten::")
        if name in ("mm", "mv", "addmm", "addmv"):
            self.columns.add(shapes[-1][-1])
        elif name in ("bmm", "baddbmm"):
            self.batched.add(math.prod(shapes[-2][-2:]) * shapes[-1][-1])
        return operation(*args, **(kwargs or {}))


def test_no_matrix_product_has_the_shape_of_the_batch(models: ModelSet) -> None:
    """Libraries choose the order of a sum by the shape of a product: results would depend on the batch.

    Products of each person's own small matrices are allowed: torch computes those below 400 multiplications one by one
    in its own loop.
    """
    pose, betas, transl = (
        torch.cat([x] * 3) for x in labels_from(read_people()[f"neutral/{name}"] for name in LABELS)
    )
    fitter = Fitter(models, fit_config())
    pair = fitter.prepare("neutral")[0]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with MatrixProducts() as products:
            pair.fit(pose, betas, transl)
    finally:
        torch.set_num_threads(threads)
    assert products.columns == set()
    assert max(products.batched) < 400


@pytest.mark.parametrize("part", [SolverConfig, PassConfig, RestartConfig, BranchConfig, LocatorConfig])
def test_every_number_of_the_configuration_is_read(part: type, models: ModelSet) -> None:
    """By a fit that tries everything: no option is dead."""
    read: set[str] = set()

    class Watched(part):  # type: ignore[misc]
        def __getattribute__(self, name: str) -> Any:
            read.add(name)
            return super().__getattribute__(name)

    never_converged = {"converged_gain": 0.0, "converged_floor": 0.0}
    config = dataclasses.replace(fit_config(), retries=1, passes=PassConfig(**never_converged))
    (field,) = (f.name for f in dataclasses.fields(FitConfig) if f.type == part.__name__)
    people = read_people()
    Fitter(
        models,
        dataclasses.replace(config, **{field: Watched(**(never_converged if part is PassConfig else {}))}),
    ).fit("neutral", *labels_from(people[f"neutral/{name}"][-8:] for name in LABELS))
    assert {f.name for f in dataclasses.fields(part)} <= read
