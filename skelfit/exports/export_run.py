"""`skelfit.export`: finished shards to the files of other trainers, of viewers and of OpenSim."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from skelfit.bodies.model_set import ModelSet, find_models
from skelfit.errors import ArgumentError
from skelfit.executors.progress_bars import Count, Reporter, reporter_of
from skelfit.exports.hsmr import export_hsmr
from skelfit.exports.opensim import export_opensim
from skelfit.exports.skel_cf import export_skel_cf
from skelfit.shards.finished_run import FinishedRun, Step, open_run

FORMATS = ("skel-cf", "hsmr", "opensim", "obj", "ply")
_MESH_FORMATS = ("obj", "ply")
MESHES = 10  # people whose meshes are written unless they are chosen: two files of 1 MB each


@dataclass(frozen=True)
class Export:
    """What an export wrote."""

    path: Path  # a file (skel-cf), else a folder
    format: str
    people: int
    left_out: int = 0  # hsmr: people without an image that its loader takes
    motions: int = 0  # opensim: how many motions the people are frames of


@dataclass(frozen=True)
class _Choice:
    """Whose meshes are written."""

    keys: tuple[str, ...]
    limit: int | None

    def count(self, form: str, run: FinishedRun) -> int:
        """How many people are exported."""
        if form not in _MESH_FORMATS:
            return run.rows_out
        return len(set(self.keys)) or min(self.limit or MESHES, run.rows_out)


def export(
    folder: str | Path,
    *,
    format: str,
    out: str | Path,
    models: str | Path | None = None,
    key: Sequence[str] = (),
    limit: int | None = None,
    keep: str | Path | None = None,
    overwrite: bool = False,
    progress: bool | Count | Reporter = False,
) -> Export:
    """Write the people of a finished run in the form that others read.

    The options are those of `skelfit export`, which docs/exports.md explains.

    Args:
        folder: the shards of a finished run.
        format: skel-cf, one label file; hsmr, tars with images; opensim, .mot and .trc; obj or ply, skin and bones.
        out: a file (skel-cf), else a folder.
        models: for opensim, obj and ply: the models of the run. None: as for `convert`.
        key: for obj and ply: whose meshes; or else
        limit: those of the first people. None: 10.
        keep: a keep-list of `verify`: only people whom it keeps.
        overwrite: whether to replace what an earlier export wrote there.
        progress: True shows a bar; a function is called with the people done and the people there are.

    Returns:
        Where the export is, and how many people it holds.

    Raises:
        ArgumentError: for an option that cannot be used.
        ShardError, InputError, ModelError, OutputError: for files and places of that kind.
    """
    if format not in FORMATS:
        raise ArgumentError("format", f"one of {', '.join(FORMATS)}", repr(format))
    chosen = _Choice((key,) if isinstance(key, str) else tuple(key), limit)
    if format not in _MESH_FORMATS and (chosen.keys or limit is not None):
        name = "key" if chosen.keys else "limit"
        raise ArgumentError(name, "format obj or ply, whose people it chooses", format)
    if chosen.keys and limit is not None:
        raise ArgumentError("limit", "either key or limit", "both")
    if limit is not None and limit < 1:
        raise ArgumentError("limit", "at least 1", str(limit))
    run = open_run(Path(folder))
    if keep is not None:
        run = run.only(Path(keep))
    reporter = reporter_of(progress)
    body_models = find_models(models) if format in ("opensim", *_MESH_FORMATS) else None
    if body_models is not None:
        reporter.say(f"models: {body_models.source} (sha256 {body_models.sha256[:12]})")
    with reporter.counting(chosen.count(format, run)) as counter:
        done = _export(run, format, Path(out), body_models, chosen, overwrite, counter.update)
    for line in _lines(done, run, chosen):
        reporter.say(line)
    return done


def _export(
    run: FinishedRun,
    form: str,
    out: Path,
    models: ModelSet | None,
    chosen: _Choice,
    overwrite: bool,
    step: Step,
) -> Export:
    """Do it."""
    if form == "skel-cf":
        return Export(out, form, export_skel_cf(run, out, overwrite=overwrite, step=step))
    if form == "hsmr":
        people, left_out = export_hsmr(run, out, overwrite=overwrite, step=step)
        return Export(out, form, people, left_out=left_out)
    assert models is not None
    if form == "opensim":
        motions = export_opensim(run, out, models, overwrite=overwrite, step=step)
        return Export(out, form, run.rows_out, motions=motions)
    # Imported here because trimesh takes a moment, which other formats need not wait for.
    from skelfit.exports.mesh_files import export_meshes

    keys, limit = chosen.keys, None if chosen.keys else chosen.limit or MESHES
    people = export_meshes(run, out, models, form, keys=keys, limit=limit, overwrite=overwrite, step=step)
    return Export(out, form, people)


def _lines(done: Export, run: FinishedRun, chosen: _Choice) -> Iterator[str]:
    """Where the result is, and what to do with it."""
    people, out = done.people, done.path
    if done.format == "skel-cf":
        yield f"{people} people in {out} ({done.format})"
        yield "next: give it to SKEL-CF's trainer as X-release-skel.npz"
    elif done.format == "hsmr":
        yield f"{people} people in {out} ({done.format})"
        if done.left_out:
            yield f"{done.left_out} people are left out: they have no image that HSMR's loader takes"
        yield f"next: name the tars in HSMR's dataset configuration: urls: {out}/{{000000..N}}.tar"
    elif done.format == "opensim":
        yield f"{people} people in {done.motions} motions in {out} (.mot, .trc; .csv says who is which row)"
        yield "next: plot a .mot, or scale a model with markers of your own to a .trc (docs/opensim.md);"
        yield "  no OpenSim model has SKEL's coordinates, so none plays a .mot"
    else:
        yield f"skin and bones of {people} people in {out} (.{done.format}, metres, y up)"
        if not chosen.keys and chosen.limit is None and people < run.rows_out:
            yield f"these are the first of {run.rows_out}; others with --limit N or --key KEY"
        yield "next: open a skin and its bones together, in Blender or MeshLab, say"
