"""Every processor's answers: the same in any company, and those that were recorded for this algorithm version."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import pytest
import torch
from golden_fit import (
    CAPABILITIES,
    HOW,
    KINDS,
    LABELS,
    atypical,
    constants,
    fit_config,
    read_people,
    run,
)
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


@pytest.mark.parametrize("target", CAPABILITIES)
def test_answers_are_the_same_in_any_company_and_those_recorded(target: str) -> None:
    """Alone, among 6, 19 or 31 others, in another order, by one thread and by two: the same bits.

    And those recorded, on a kind of processor that is; elsewhere as close to them as processors are to each other.
    """
    if not CAPABILITIES[target].here:
        pytest.skip(f"this processor has not all of {target}")
    recorded = json.loads(KINDS.read_text())
    assert recorded["algorithm"] == ALGORITHM_VERSION, (
        "record the answers: python tests/fitting/golden_fit.py --record"
    )
    result = run(target, "--company")
    assert result["company"] == []
    if digest := recorded["kinds"].get(result["kind"]):
        assert result["digest"] == digest, f"{result['kind']}: {HOW}"
    else:
        assert atypical(result["deviations"]) == [], f"{result['kind']}: {HOW}"


def test_constants_are_those_recorded() -> None:
    """Some act on so few people that none of them is among those recorded."""
    before, now = json.loads(KINDS.read_text())["constants"], constants()
    changed = [
        f"{k}: {before.get(k)} -> {now.get(k)}"
        for k in sorted({*before, *now})
        if before.get(k) != now.get(k)
    ]
    assert not changed, (
        f"{'; '.join(changed)}. If that changes anyone's result, raise ALGORITHM_VERSION in "
        "skelfit/conversion/run_plan.py; then run: python tests/fitting/golden_fit.py --record"
    )


class Products(TorchDispatchMode):
    """Notes the shapes of all matrix products."""

    def __init__(self) -> None:
        super().__init__()
        self.columns: set[int] = set()
        self.batched: set[int] = set()

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        shapes = [x.shape for x in args if isinstance(x, torch.Tensor)]
        name = operation._schema.name.removeprefix("aten::")
        if name in ("mm", "mv", "addmm", "addmv"):
            self.columns.add(shapes[-1][-1])
        elif name in ("bmm", "baddbmm"):
            self.batched.add(math.prod(shapes[-2][-2:]) * shapes[-1][-1])
        return operation(*args, **(kwargs or {}))


def test_no_matrix_product_has_the_shape_of_the_batch(models: ModelSet) -> None:
    """On any processor: libraries choose how to add up by the shape of a product.

    So there are none whose shape has to do with people but those of a person's own matrices, which are so small that
    torch computes them one by one in its own loop (below 400 multiplications).
    """
    people = [torch.cat([read_people()[f"neutral/{name}"]] * 3) for name in LABELS]
    fitter = Fitter(models, fit_config())
    pair = fitter.prepare("neutral")[0]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with Products() as products:
            pair.fit(*people)
    finally:
        torch.set_num_threads(threads)
    assert products.columns == set()
    assert max(products.batched) < 400


@pytest.mark.parametrize("part", [SolverConfig, PassConfig, RestartConfig, BranchConfig, LocatorConfig])
def test_every_number_of_the_configuration_is_read(part: type, models: ModelSet) -> None:
    """By a fit of people with whom everything is tried: none is a dead option."""
    read: set[str] = set()

    class Watched(part):
        def __getattribute__(self, name: str) -> Any:
            read.add(name)
            return super().__getattribute__(name)

    strict = {"converged_gain": 0.0, "converged_floor": 0.0}
    config = dataclasses.replace(fit_config(), retries=1, passes=PassConfig(**strict))
    (field,) = (f.name for f in dataclasses.fields(FitConfig) if f.type == part.__name__)
    people = read_people()
    Fitter(
        models, dataclasses.replace(config, **{field: Watched(**(strict if part is PassConfig else {}))})
    ).fit("neutral", *(people[f"neutral/{name}"][-8:] for name in LABELS))
    assert {f.name for f in dataclasses.fields(part)} <= read
