"""The report as one page that needs no network: tables, charts, a body painted with errors, the worst people in 3D.

The page holds aggregates and the meshes of a few people, so its size does not grow with the dataset.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Any

import numpy as np

from skelfit.bodies.model_set import ModelSet
from skelfit.shards.shard_files import ShardError
from skelfit.storage.hashed_write import write_atomically
from skelfit.storage.locations import Location
from skelfit.verification.measures.posed_bodies import BodyModels
from skelfit.verification.report.array_packing import UNIT_M, ArrayPack
from skelfit.verification.report.before_and_after import figures_of, other_people, tar_of
from skelfit.verification.report.gallery import (
    PersonDrawer,
    PersonDrawing,
    PersonPhoto,
    data_uri,
    draw_people,
    skeleton_lines,
)
from skelfit.verification.report.motion_plots import (
    ANGLE_UNIT_DEG,
    DOFS,
    TURN_UNIT_DEG,
    largest_of_each,
    packed,
    read_motion,
)
from skelfit.verification.report.page_template import filled_page, page_asset

SHOWN = 24  # people in the gallery
FAULTS_SHOWN = 200  # the first ones; the JSON report has all
_SCRIPTS = ("charts.js", "scene.js", "gallery.js", "sections.js", "motions.js", "page.js")


def write_html(
    report: Mapping[str, Any],
    folders: Sequence[Location],
    models: ModelSet,
    path: Location,
    against: Location | None = None,
) -> None:
    """Write the page of a report on shards in `folders`, beside those in `against`. Raises ModelError, OutputError."""
    text = make_page(report, folders, models, against)
    write_atomically(path, lambda stream: stream.write(text.encode()))


def make_page(
    report: Mapping[str, Any], folders: Sequence[Location], models: ModelSet, against: Location | None = None
) -> str:
    """The page of a report on shards in `folders`. It names people who cannot be drawn. Raises ModelError.

    against: other shards; people who are other there are drawn and measured as they are there, too.
    """
    pack, artist, skipped = ArrayPack(), PersonDrawer(models), list[dict[str, str]]()
    measured = {person["key"]: person for person in worst_in_turn(report.get("worst", ()), SHOWN)}
    before = other_people(measured.values(), folders, against)
    drawn = draw_people(
        [(tar_of(folders, person["shard"]), key) for key, person in measured.items()],
        artist,
        lambda key, reason: skipped.append({"key": key, "reason": reason}),
        before,
    )
    figures = figures_of(before, models)
    motions = [*_motions(report, folders, BodyModels(models), pack, skipped)]
    body, faces = artist.standing()
    people = {
        "unit": UNIT_M,
        "topologies": {"skin": pack.add(faces)}
        | {gender: pack.add(artist.skel(gender)[1].faces) for gender in sorted({d.gender for d in drawn})},
        "body": pack.add_points(body),
        "people": [_person(d, measured[d.key], figures.get(d.key), pack) for d in drawn],
        "motions": motions,
        "motion_dofs": DOFS,
        "motion_units_deg": {"angles": ANGLE_UNIT_DEG, "turns": TURN_UNIT_DEG},
        "skipped": skipped,
    }
    return filled_page(
        title="skelfit verify",
        footer="Made by <b>skelfit verify</b> from the shards and the body models alone.",
        report=_page_report(report),
        people=people,
        packed=pack.text(),
        script="\n".join(page_asset(name) for name in _SCRIPTS),
    )


def _motions(
    report: Mapping[str, Any],
    folders: Sequence[Location],
    bodies: BodyModels,
    pack: ArrayPack,
    skipped: list[dict[str, str]],
) -> Iterator[dict[str, Any]]:
    """The sequences with the largest jumps, for the page's script; those that cannot be read go into `skipped`."""
    jumps = (report.get("anatomy") or {}).get("jumps") or {}
    for jump in largest_of_each(jumps.get("worst", ())):
        try:
            yield packed(read_motion(tar_of(folders, jump["shard"]), jump, bodies), pack)
        except ShardError as error:
            skipped.append({"key": jump["key"], "reason": str(error)})


def worst_in_turn(worst: Sequence[Mapping[str, Any]], count: int) -> list[Mapping[str, Any]]:
    """`count` of the worst people: in turn the next worst by each measure, so that every measure is represented."""
    names = list(dict.fromkeys(name for person in worst for name in person["worst_by"]))
    lists = [[person for person in worst if name in person["worst_by"]] for name in names]
    in_turn = (person for rank in zip_longest(*lists) for person in rank if person is not None)
    return list({person["key"]: person for person in in_turn}.values())[:count]


def _page_report(report: Mapping[str, Any]) -> dict[str, Any]:
    """The parts of a report that do not grow with the dataset or with its damage."""
    integrity = report["integrity"]
    kept: dict[str, Any] = {name: part for name, part in report.items() if name != "worst"}
    kept["integrity"] = {
        **{name: part for name, part in integrity.items() if name != "folders"},
        "name": _name(integrity),
        "damage": integrity["damage"][:FAULTS_SHOWN],
    }
    if "against" in report:
        # The comparison has everything else of the other report.
        other = report["against"]
        accuracy = other.get("accuracy") or {}
        kept["against"] = {"name": _name(other["integrity"])} | {
            name: accuracy.get(name) for name in ("pve_mm", "max_vertex_mm")
        }
    return kept


def _name(integrity: Mapping[str, Any]) -> str:
    """The folders of a dataset; two datasets may have the same subset."""
    return ", ".join(folder["folder"] for folder in integrity["folders"])


def _person(
    drawn: PersonDrawing, measured: Mapping[str, Any], before: Mapping[str, Any] | None, pack: ArrayPack
) -> dict[str, Any]:
    """A person for the page's script; the meshes go into `pack`."""
    return {
        **{name: measured[name] for name in ("key", "shard", "metrics", "worst_by")},
        "before": before,
        "topology": drawn.gender,
        "target": None if drawn.target is None else pack.add_points(drawn.target),
        "skin": pack.add_points(drawn.skin, drawn.target),
        "bones": pack.add_points(drawn.bones),
        "photo": None if drawn.photo is None else _photo(drawn.photo),
    }


def _photo(photo: PersonPhoto) -> dict[str, Any]:
    return {
        "source": data_uri(photo.jpeg),
        "size": photo.size,
        "lines": skeleton_lines(photo.joints),
        "before": None if photo.before is None else skeleton_lines(photo.before),
        "keypoints": np.round(photo.keypoints, 1).tolist(),
    }
