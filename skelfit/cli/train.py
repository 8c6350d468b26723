"""`skelfit train`: a network on finished shards; `skelfit train import`: one that others have trained."""

from __future__ import annotations

import shutil
import signal
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from skelfit.api.refine_arrays import label_refiner
from skelfit.bodies.model_set import find_models
from skelfit.cli.command_with_commands import CommandWithCommands
from skelfit.cli.console import Console, pass_console
from skelfit.cli.interrupts import INTERRUPTED, TERMINATED
from skelfit.cli.path_types import FILE, FOLDER, PATH, PATTERN, TRAINING
from skelfit.cli.shared_options import COUNT, device_option, models_option, out_option, overwrite_option
from skelfit.cli.training_curve import CURVE_NAME, draw_curve
from skelfit.errors import OutputError
from skelfit.executors.progress_bars import Progress
from skelfit.fitting.backends.compute_device import find_device
from skelfit.learning.data.person_stream import SubsetConfig
from skelfit.learning.data.process_group import ProcessGroup, is_first, process_group
from skelfit.learning.evaluation.validation import BEYOND_DEG, ERRORS, PCK_AT, Measured
from skelfit.learning.published.checkpoint_import import HEAD_DIM, import_checkpoint
from skelfit.learning.published.published_kinds import KINDS
from skelfit.learning.training import checkpoint
from skelfit.learning.training.training_config import OptimizerConfig, TrainConfig, load_train_config, ready
from skelfit.learning.training.training_log import BOARD_NAME, LOG_NAME
from skelfit.learning.training.training_loop import train
from skelfit.storage.atomic_write import remove_file
from skelfit.storage.command_lines import next_command
from skelfit.storage.locations import Location, location_of

_LEARNT = {"keypoints": "keypoints", "coarse": "pose and betas"}  # in the stages before the last


@click.command("train", cls=CommandWithCommands)
@click.argument("config_file", metavar="[CONFIG]", required=False, type=TRAINING)
@click.option("--config", "config_option", type=TRAINING, help="The same as CONFIG.")
@click.option(
    "--shards",
    type=PATTERN,
    multiple=True,
    help="Finished shards: a folder or a pattern; may be given several times.",
)
@click.option(
    "--val",
    type=PATTERN,
    multiple=True,
    help="Shards to measure with  [default: people that data.held_out holds out].",
)
@click.option(
    "--checkpoint",
    "start",
    type=PATH,
    help="Weights to start with, in place of network.checkpoint: ViTPose's, or a checkpoint.",
)
@out_option(FOLDER)
@click.option("--resume", is_flag=True, help="Go on from the last checkpoint in --out, if there is one.")
@overwrite_option
@click.option(
    "--epochs", type=COUNT, help="Length of the main stage, in place of optimizer.epochs or .steps."
)
@click.option("--steps", type=COUNT, help="Length of each stage, for a trial.")
@models_option
@device_option
@pass_console
def train_command(
    console: Console,
    config_file: Path | None,
    config_option: Path | None,
    shards: tuple[str, ...],
    val: tuple[str, ...],
    start: Path | None,
    out: Path,
    resume: bool,
    overwrite: bool,
    epochs: int | None,
    steps: int | None,
    models: Location | None,
    device: str,
) -> None:
    """Train the network of CONFIG (train-tiny, train-skel-cf or a file; default: SKEL-CF's) on finished shards.

    For several GPUs or machines: torchrun --nproc-per-node N -m skelfit train ...
    """
    if config_file is not None and config_option is not None:
        raise click.UsageError("give the configuration once: as CONFIG or as --config")
    if resume and overwrite:
        raise click.UsageError("--resume goes on with what --overwrite removes: give one of them")
    if epochs is not None and steps is not None:
        raise click.UsageError("give one length: --epochs or --steps")
    path = config_file or config_option
    config = TrainConfig() if path is None else load_train_config(path)
    if shards:
        subsets = tuple(SubsetConfig(tars_of(each)) for each in shards)
        config = replace(config, data=replace(config.data, subsets=subsets))
    if val:
        subsets = tuple(SubsetConfig(tars_of(each)) for each in val)
        config = replace(config, validation=replace(config.validation, subsets=subsets))
        config = replace(config, data=replace(config.data, held_out=0.0))  # other shards are measured
    if start is not None:
        config = replace(config, network=replace(config.network, checkpoint=str(start)))
    if epochs is not None:
        config = replace(config, optimizer=replace(config.optimizer, epochs=epochs, steps=None))
    if steps is not None:
        stages: dict[str, Any] = {
            name: replace(stage, steps=steps, epochs=None) for name, stage in config.stages.items()
        }
        config = replace(config, **stages)
    ready(config, path or "the configuration of SKEL-CF (no CONFIG was given)")
    body_models, device = find_models(models), find_device(device)
    if is_first():
        refuse_files_in(out, resume=resume, overwrite=overwrite)
        console.say(f"models: {body_models.source} (sha256 {body_models.sha256[:12]})")
    with (
        process_group(device) as group,
        Watching(config, out, group, console if group.first else None, overwrite=overwrite) as watch,
    ):
        refine = None
        if config.better_labels is not None:
            refine = label_refiner(config.better_labels, body_models, config.skel_gender, device)
        end = train(config, out, body_models, group, watch, resume=resume, refine=refine)
    if not is_first():
        return
    if end.skipped:
        console.say(f"{end.skipped} steps were skipped: their losses or gradients were not finite")
    console.result(f"checkpoint: {end.checkpoint}")
    if not end.finished:
        console.warn(f"stopped after step {end.step}; the same command with --resume goes on there")
        sys.exit(watch.code)
    console.say(f"log: {out}/log.jsonl, {out}/curve.png; tensorboard --logdir {out}")
    console.say(next_command("predict", out, "IMAGE...", "--out", "predictions"))


@train_command.command("import")
@click.argument("file", type=FILE)
@out_option(FILE)
@click.option(
    "--kind", type=click.Choice(list(KINDS)), help="Of which network FILE is  [default: what its names say]."
)
@overwrite_option
@pass_console
def import_command(console: Console, file: Path, out: Path, kind: str | None, overwrite: bool) -> None:
    """Make a checkpoint of FILE, which the authors of SKEL-CF, HSMR or 4D-Humans published.

    `skelfit predict` and `skelfit evaluate` take it, and trainings begin with it (network.checkpoint). Nothing in FILE
    is run. Of ViTPose's backbone it says how to use the file as it is.
    """
    if out.exists() and not overwrite:
        raise OutputError(f"{out}: exists already; choose another file or --overwrite")
    imported = import_checkpoint(file, kind)
    checkpoint.save(out, imported.content)
    network, published = imported.network, KINDS[imported.kind]
    under = f" (its {imported.place})" if imported.place else ""
    console.say(f"{published.title}: {len(imported.content['weights'])} weights of {file}{under}")
    console.say(
        f"  network.kind: {network.kind}, {network.backbone}, {network.layers} layers; {HEAD_DIM} numbers a head"
    )
    for what, count in imported.beside.items():
        console.say(f"  left: {what} ({count} tensor{'s' if count > 1 else ''})")
    console.result(f"checkpoint: {out}")
    if imported.missing:
        console.warn(f"no weights for {', '.join(imported.missing)}: it can begin a training, no more")
        options = ("--checkpoint", out, "--shards", "DIR", "--out", "DIR")
        console.say(next_command("train", "train-hsmr", *options))
    else:
        console.say(next_command("predict", out, "IMAGE...", "--out", "predictions"))


def tars_of(shards: str) -> str:
    """The pattern of the tars of a folder; what is no folder is a pattern already."""
    return f"{shards.rstrip('/')}/*.tar" if location_of(shards).is_dir() else shards


def refuse_files_in(out: Path, *, resume: bool, overwrite: bool) -> None:
    """Raise OutputError where the folder holds files and no option says what to do with them."""
    if not (resume or overwrite) and out.is_dir() and any(out.iterdir()):
        raise OutputError(f"{out}: holds files already; choose another folder, --resume or --overwrite")


def make_folder(out: Path, *, overwrite: bool) -> None:
    """Make the folder; overwrite: remove the training in it, and no other file. Raises OutputError."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        if overwrite:
            for name in (checkpoint.BEST_NAME, LOG_NAME, CURVE_NAME):
                remove_file(out / name)
            for name in (checkpoint.FOLDER_NAME, BOARD_NAME):
                if (out / name).is_dir():
                    shutil.rmtree(out / name)
    except OSError as error:
        raise OutputError(f"{out}: cannot be made ready: {error}") from error


class Watching:
    """People, people/s, time left and the loss on stderr.

    console: None in the processes that say nothing.
    overwrite: an earlier training in the folder is removed, as soon as all is there that this one needs.
    Within it, Ctrl-C and SIGTERM end the training after the step, with a checkpoint; a second one at once.
    """

    def __init__(
        self,
        config: TrainConfig,
        out: Path,
        group: ProcessGroup,
        console: Console | None,
        *,
        overwrite: bool,
    ) -> None:
        self.config, self.out, self.group, self.console, self.code = config, out, group, console, 0
        self.overwrite = overwrite
        self.progress: Progress | None = None
        self.stage = ""

    def __enter__(self) -> Watching:
        self.handlers = {s: signal.signal(s, self._ask_to_stop) for s in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.handlers.items():
            signal.signal(number, handler)
        self.close()

    def _ask_to_stop(self, number: int, _: object) -> None:
        if self.code:
            raise KeyboardInterrupt
        self.code = INTERRUPTED if number == signal.SIGINT else TERMINATED

    def stop(self) -> bool:
        """Whether a signal has come."""
        return bool(self.code)

    def begins(self, config: TrainConfig) -> None:
        """Take the configuration whose lengths are in steps, and print them; make the folder. Raises OutputError."""
        self.config = config
        if self.group.first:
            make_folder(self.out, overwrite=self.overwrite)
        self.say(f"{config.name}: {config.steps} steps on {self.group.device}, to {self.out}")

    def step(self, done: int, loss: float) -> None:
        """Count a step of a stage. The speed is that of the steps after the first seen of it, which takes longer."""
        if self.console is None:
            return
        name, before, part = stage_at(done, self.config)
        each = self.group.part.of * self.config.data.batch_size * part.accumulate
        if name != self.stage or self.progress is None:
            self.close()
            self.stage = name
            self.progress = self.console.reporter().counting(part.length * each, (done - before) * each)
        new = (done - before) * each - self.progress.done
        self.progress.show(new, f"{name}, step {done}/{self.config.steps}, loss {loss:.4f}")

    def close(self) -> None:
        """End the bar, if there is one."""
        if self.progress is not None:
            self.progress.bar.close()

    def say(self, line: str) -> None:
        """Print a line, above the bar where there is one."""
        if self.console is not None:
            self.console.say(line)

    def measured(self, done: int, figures: Measured) -> None:
        """Print the figures of a validation, and draw those so far."""
        self.say(f"step {done}: {in_words(figures)}")
        if self.console is not None:
            draw_curve(self.out)


def stage_at(step: int, config: TrainConfig) -> tuple[str, int, OptimizerConfig]:
    """What is learnt in a step, counted from 1: its name, the steps before it, and how."""
    before = 0
    for key, stage in list(config.stages.items())[:-1]:
        if step <= before + stage.length:
            return _LEARNT[key], before, stage
        before += stage.length
    return "network", before, config.optimizer


def in_words(measured: Measured) -> str:
    """The figures in two lines."""

    def errors(figures: Mapping[str, float]) -> str:
        return ", ".join(f"{name} {figures[key]:.1f}" for key, name in ERRORS.items())

    pck = ", ".join(f"PCK@{at} {measured[f'pck_{at}'] or 0:.1%}" for at in PCK_AT)
    shares = zip(measured["violations"]["any"], BEYOND_DEG, strict=True)
    return (
        f"{measured['people']} people held out, mm: {errors(measured)}; {pck}\n"
        f"  the mean pose: {errors(measured['mean_pose'])}; people beyond a joint limit: "
        f"{', '.join(f'{share:.1%} by {deg}' for share, deg in shares)} degrees"
    )
