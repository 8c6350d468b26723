"""Every processor's answers: the same in any company, and those that were recorded for this algorithm version."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
from golden_fit import CAPABILITIES, HOW, KINDS, atypical, run

from skelfit.plan import ALGORITHM_VERSION

NAMES = {"default": "DEFAULT", "avx2": "AVX2", "avx512": "AVX512"}


@pytest.fixture(scope="module")
def checked() -> Callable[[str], dict[str, Any]]:
    """What a process with the loops of a capability computes; skips where the processor does not have them."""
    results = cache(lambda capability: run(capability, "--check", "--company"))

    def checked(capability: str) -> dict[str, Any]:
        result = results(capability)
        if f"loops {NAMES[capability]}," not in result["kind"]:
            pytest.skip(f"this processor has no {capability}: {result['kind']}")
        return result

    return checked


@pytest.mark.parametrize("capability", CAPABILITIES)
def test_a_person_is_fitted_alike_to_the_bit_in_any_company(
    capability: str, checked: Callable[[str], dict[str, Any]]
) -> None:
    """Alone, among 6 or among 31 others, in another order, by one thread and by two: the same bits."""
    assert checked(capability)["company"] == []


@pytest.mark.parametrize("capability", CAPABILITIES)
def test_answers_are_those_recorded(capability: str, checked: Callable[[str], dict[str, Any]]) -> None:
    """To the bit on a kind of processor that is recorded; elsewhere as close as processors are to each other."""
    recorded = json.loads(KINDS.read_text())
    assert recorded["algorithm"] == ALGORITHM_VERSION, "record the answers: python tests/golden_fit.py --record"
    result = checked(capability)
    if digest := recorded["kinds"].get(result["kind"]):
        assert result["digest"] == digest, f"{result['kind']}: {HOW}"
    else:
        assert atypical(result["deviations"]) == [], f"{result['kind']}: {HOW}"
