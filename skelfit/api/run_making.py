"""The run of a subset, from the options of a conversion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from skelfit.api.refused_options import GivenOptions, check_given
from skelfit.api.subsets import (
    Subset,
    check_filters,
    check_images,
    label_files,
    prepare_images,
    say_sequences,
)
from skelfit.bodies.model_set import OPEN_BODY, ModelSet
from skelfit.config.pipeline import Pipeline
from skelfit.conversion.rank import Rank
from skelfit.conversion.run_plan import Run
from skelfit.executors.executor import Executor
from skelfit.executors.progress_bars import Reporter
from skelfit.labels.filters import switch_filters
from skelfit.storage.locations import Location, address_of, location_of

STORES = ".stores"  # beside the shards: all workers can read what they write to


@dataclass(frozen=True)
class RunOptions:
    """What the options ask for, whatever the subset."""

    pipeline: Pipeline
    models: ModelSet
    device: str
    executor: Executor
    fit_batch: int | None  # label rows that are fitted together
    limit: int | None
    filters_on: Sequence[tuple[str, float | None]]
    filters_off: Sequence[str]
    overwrite: bool
    extend: bool
    rank: Rank | None
    given: GivenOptions
    reporter: Reporter


def make_run(subset: Subset, out: Location, stores: Location, options: RunOptions) -> Run:
    """The run, with the stores of its labels in a folder; says what there is to say of them.

    Raises LabelError, ImageError, OptionError, OutputError.
    """
    settings, models, say = options.pipeline, options.models, options.reporter.say
    run = Run(
        subset=subset.name,
        out=address_of(out),
        images=prepare_images(subset.images, settings.images.mode, stores, say),
        models=None if models.source == OPEN_BODY else address_of(location_of(models.source)),
        models_sha256=models.sha256,
        pipeline=settings,
        device=options.device,
        labels=label_files(
            subset,
            stores,
            settings.gates.max_abs_beta,
            options.limit,
            say,
            shared=options.rank is not None,
        ),
        filters=switch_filters(subset.filters, options.filters_on, options.filters_off),
        description=subset.description,
        origins=subset.origins,
    )
    check_given(run, options.given)
    check_filters(run, say)
    check_images(run, say)
    say_sequences(run, say)
    return run
