"""`skelfit tar-labels`: the SMPL labels inside 4D-Humans' tars, as a label file."""

from __future__ import annotations

import click
from tqdm import tqdm

from skelfit.bodies.assets import write_npz
from skelfit.cli.console import Console, pass_console
from skelfit.cli.path_types import OUT_PLACE, PATTERN
from skelfit.cli.shared_options import out_option, overwrite_option
from skelfit.errors import OutputError
from skelfit.images.fourdhumans_tars import read_tar_labels
from skelfit.images.image_source import locate_images
from skelfit.storage.command_lines import next_command
from skelfit.storage.locations import Location


@click.command("tar-labels")
@click.argument("tars", type=PATTERN)
@out_option(OUT_PLACE)
@overwrite_option
@pass_console
def tar_labels_command(console: Console, tars: str, out: Location, overwrite: bool) -> None:
    """Collect the SMPL labels of TARS (4D-Humans'; 'DIR/*.tar', quoted) in one label file, --out (.npz).

    Their pickles are read without being run.
    """
    if out.suffix != ".npz":
        raise OutputError(f"{out}: expected a file name that ends in .npz")
    if out.exists() and not overwrite:
        raise OutputError(f"{out}: exists already; choose another name or --overwrite")
    source = locate_images(tars)
    if source is None or not source.tars:
        raise click.BadParameter(f"no such tar: {tars}", param_hint="TARS")
    with tqdm(total=len(source.tars), unit="tar", disable=console.quiet or None) as bar:
        columns = read_tar_labels(source.tars, lambda _: bar.update(1))
    out.parent.mkdir(parents=True, exist_ok=True)
    write_npz(out, columns)
    people, images = len(columns["imgname"]), len(set(columns["imgname"].tolist()))
    console.result(f"{people} people in {images} images of {len(source.tars)} tars: {out}")
    convert = next_command("convert", "--labels", out, "--images", tars, "--out", "DIR")
    console.say(f"{convert}, or a manifest")
