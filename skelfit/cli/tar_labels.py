"""`skelfit tar-labels`: the SMPL labels inside 4D-Humans' tars, as a label file."""

from __future__ import annotations

from pathlib import Path

import click
from tqdm import tqdm

from skelfit.bodies.assets import write_npz
from skelfit.cli.path_types import PATH, PATTERN
from skelfit.errors import OutputError
from skelfit.images.fourdhumans_tars import read_tar_labels
from skelfit.images.image_source import locate_images


@click.command("tar-labels")
@click.argument("tars", type=PATTERN)
@click.option("--out", type=PATH, required=True, help="The label file (.npz).")
@click.option("--overwrite", is_flag=True, help="Replace it.")
def tar_labels_command(tars: str, out: Path, overwrite: bool) -> None:
    """Collect the SMPL labels of TARS (4D-Humans'; 'DIR/*.tar', quoted) in one label file.

    Their pickles are read without being run.
    """
    if out.suffix != ".npz":
        raise OutputError(f"{out}: expected a file name that ends in .npz")
    if out.exists() and not overwrite:
        raise OutputError(f"{out}: exists already; choose another name or --overwrite")
    place = locate_images(tars)
    if place is None or not place.tars:
        raise click.BadParameter(f"no such tar: {tars}", param_hint="TARS")
    with tqdm(total=len(place.tars), unit="tar", disable=None) as bar:
        columns = read_tar_labels(place.tars, lambda _: bar.update(1))
    out.parent.mkdir(parents=True, exist_ok=True)
    write_npz(out, columns)
    people, images = len(columns["imgname"]), len(set(columns["imgname"].tolist()))
    click.echo(f"{people} people in {images} images of {len(place.tars)} tars: {out}")
    click.echo(f"next: skelfit convert --labels {out} --images '{tars}' --out DIR, or a manifest")
