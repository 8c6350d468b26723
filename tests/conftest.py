"""What the tests share: the open body, as our assets and as files in the official schemas; how they run in parallel.

`make test` runs them in as many processes as there are cores. A module stays in one process, for the sake of its
fixtures, unless it is one of SPLIT. Those that take long come first, and those that need the fit after those that do
not, because a program compiles it meanwhile.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import compile_lock
import programs
import pytest
import torch
from backends import backend  # noqa: F401  a fixture
from spawned import fork_spawned
from torch import Tensor

import skelfit.fitting.fitter
from skelfit.bodies.model_set import ModelSet, open_models
from skelfit.bodies.open_body import open_body_models, write_official
from skelfit.bodies.skel import SkelModel
from skelfit.fitting.terms.shoulder_targets import JointLocator, make_locator

# Long ones without a fit, first; then the others; then long ones that fit, those of the slowest kernels first.
FIRST = (
    "test_faults test_training_loop test_training_stages test_checkpoint test_cluster test_cluster_connect "
    "test_open_body test_skel_cf_network".split()
)
LAST = (
    "test_anatomy test_package test_cluster_docs test_docs_site test_cli test_golden test_study_fit test_fit "
    "test_bench"
).split()
# Modules of tests that share little and take long: their tests are handed out one by one.
SPLIT = ("test_golden", "test_study_fit", "test_fit", "test_bench")
ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")  # of each of several processes

compile_lock.compile_once()
fork_spawned()


def pytest_configure(config: pytest.Config) -> None:
    """Before several processes test: what all of them need is started, once."""
    if not config.getoption("numprocesses", None) or hasattr(config, "workerinput"):
        return
    os.environ |= dict.fromkeys(ONE_THREAD, "1")
    os.environ[programs.SERVER_VARIABLE] = programs.server()
    config.stash[_WARM_UP] = programs.start("-c", compile_lock.WARM_UP, log=Path(os.devnull))


_WARM_UP = pytest.StashKey[programs.Program]()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Modules to processes, and the tests of some modules one by one, in our order."""
    from xdist.scheduler import LoadScopeScheduling

    class ByModule(LoadScopeScheduling):  # type: ignore[misc]  # xdist ships no types
        def _split_scope(self, nodeid: str) -> str:
            module = nodeid.partition("::")[0]
            return nodeid if Path(module).stem in SPLIT else module

    config.option.loadscopereorder = False
    return ByModule(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Sort the modules; a single process takes them as they are. Tests of a GPU are skipped where there is none."""
    if not torch.cuda.is_available():
        skip = pytest.mark.skip(reason=f"needs a GPU: torch {torch.__version__} finds none here")
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(skip)
    if config.getoption("numprocesses", None) or hasattr(config, "workerinput"):
        items.sort(key=lambda item: _rank(item.path.stem))


def _rank(module: str) -> int:
    if module in FIRST:
        return FIRST.index(module) - len(FIRST)
    return LAST.index(module) + 1 if module in LAST else 0


@pytest.fixture(scope="session")
def models() -> ModelSet:
    return open_models()


@pytest.fixture(scope="session")
def official(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the open body in the official file schemas."""
    folder = tmp_path_factory.mktemp("official")
    write_official(open_body_models(), folder)
    return folder


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session", autouse=True)
def _locators() -> Iterator[None]:
    """Where shoulders are on a body's skin is learnt once and not for each fitter: it takes most of making one."""
    learnt: dict[tuple[object, ...], tuple[SkelModel, JointLocator]] = {}

    def make_once(model: SkelModel, limits: Tensor, *how: Any, **options: Any) -> JointLocator:
        rest, more = model.v_template, (how, *options.items())
        key = (id(model.asset), rest.dtype, rest.device, limits.dtype, tuple(limits.flatten().tolist()), more)
        if key not in learnt:
            learnt[key] = (
                model,
                make_locator(model, limits, *how, **options),
            )  # the model is kept, and with it its id
        return learnt[key][1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(skelfit.fitting.fitter, "make_locator", make_once)
        yield
