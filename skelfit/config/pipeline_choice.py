"""The pipeline that a caller names, with the settings that they override."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from skelfit.config.fit_settings import check_neutral_target
from skelfit.config.pipeline import Pipeline, load_pipeline
from skelfit.errors import ConfigError
from skelfit.resources.catalog import PIPELINES
from skelfit.storage.checked_arguments import file_argument
from skelfit.storage.locations import Place

DEFAULT_PIPELINE = "hmr-skel"


def chosen_pipeline(
    given: Place | Pipeline = DEFAULT_PIPELINE,
    skel_gender: str | None = None,
    shard_size: int | None = None,
    independent_frames: bool = False,
) -> Pipeline:
    """The pipeline of a name or of a YAML file (a Path is never a name), or the given one, with the overrides applied.

    skel_gender: male, female or best, of the SKEL for neutral labels; shard_size: label rows per shard;
    independent_frames: each frame of a sequence is fitted by itself. Raises ConfigError, and
    ArgumentError for what is no path.
    """
    if isinstance(given, Pipeline):
        pipeline, path = given, Path(given.name)
    else:
        path = file_argument("pipeline", given, PIPELINES.find)
        pipeline = load_pipeline(path)
    if independent_frames:
        if pipeline.temporal is None:
            expected = "a pipeline that fits frames of a sequence as one problem, for --independent-frames"
            actual = "each fitted by itself" + (" (first_order)" if pipeline.first_order else "")
            actual += "; drop --independent-frames"
            raise ConfigError(path, "fit.temporal", expected, actual)
        pipeline = replace(pipeline, fit=replace(pipeline.fit, temporal=None))
    if skel_gender is not None:
        if skel_gender not in ("male", "female", "best"):
            raise ConfigError(path, "fit.skel_gender", "male, female or best", repr(skel_gender))
        gender: Any = skel_gender
        pipeline = replace(pipeline, fit=replace(pipeline.fit, skel_gender=gender))
        check_neutral_target(pipeline.fit, path)
    return pipeline if shard_size is None else replace(pipeline, shard_size=shard_size)
