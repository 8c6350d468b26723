"""The report of an evaluation as one page: figures, histograms, and the worst people in 3D beside their targets."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from typing import Any

import numpy as np
import torch

from skelfit.protocols.estimates import ChunkEstimates, Estimates
from skelfit.protocols.evaluated_bodies import PosedSkins
from skelfit.protocols.figures import roots
from skelfit.protocols.row_scores import Array, Scorer
from skelfit.verification.report.array_packing import UNIT_M, ArrayPack
from skelfit.verification.report.gallery import PersonDrawer, to_view
from skelfit.verification.report.page_template import filled_page, page_asset

SHOWN = 24  # people in the gallery
TITLE = "skelfit evaluate"
_SCRIPTS = ("charts.js", "scene.js", "gallery.js", "sections.js")


def make_page(report: Mapping[str, Any], scorer: Scorer, estimates: Estimates) -> str:
    """The page of a report; the worst people are estimated again. Raises InputError, ModelError."""
    pack, worst = ArrayPack(), report["worst"][:SHOWN]
    people: dict[str, Any] = {"unit": UNIT_M, "topologies": {}, "people": []}
    if worst:
        artist = PersonDrawer(scorer.bodies.models)
        chunk = estimates.of_rows(np.array([person["row"] for person in worst], np.int64))
        drawn = _drawn(chunk, scorer, artist, pack)
        people["people"] = [{**person, **drawn[person["row"]]} for person in worst if person["row"] in drawn]
        genders = sorted({person["topology"] for person in people["people"]})
        if genders:
            people["topologies"] = {gender: pack.add(artist.skel(gender)[1].faces) for gender in genders}
            people["topologies"]["skin"] = pack.add(artist.skel(genders[0])[0].asset.faces)
    script = (files("skelfit.protocols") / "page" / "evaluation.js").read_text("utf-8")
    return filled_page(
        title=f"{TITLE}: {report['protocol']['name']}",
        footer=f"Made by <b>{TITLE}</b> from labels, predictions and body models.",
        report={name: part for name, part in report.items() if name != "worst"},
        people=people,
        packed=pack.text(),
        script="\n".join([*(page_asset(name) for name in _SCRIPTS), script]),
    )


@torch.inference_mode()
def _drawn(
    chunk: ChunkEstimates, scorer: Scorer, artist: PersonDrawer, pack: ArrayPack
) -> dict[int, dict[str, Any]]:
    """What the page's script draws of each row of a chunk; the meshes go into `pack`."""
    if not len(chunk.rows):
        return {}
    drawn = {}
    bodies, target = chunk.stages[-1].bodies, scorer.target(chunk.rows)
    root = _root(scorer, bodies)
    label_root = None if target is None else _root(scorer, target)
    for k, row in enumerate(chunk.rows.tolist()):
        gender = "female" if chunk.final.female[k] else "male"
        model, thin = artist.skel(gender)
        poses, betas = (
            torch.tensor(v[k], dtype=torch.float32) for v in (chunk.final.poses, chunk.final.betas)
        )
        bones = model.bones(model.shape(betas), poses).double().numpy()[thin.vertices]
        skin = _seen(bodies.skin[k], root[k])
        middle = (skin.max(0) + skin.min(0)) / 2
        aim = None
        if target is not None and label_root is not None:
            aim = _seen(target.skin[k], label_root[k]) - middle
        drawn[row] = {
            "topology": gender,
            "photo": None,
            "target": None if aim is None else pack.add_points(aim),
            "skin": pack.add_points(skin - middle, aim),
            "bones": pack.add_points(_seen(bones, root[k]) - middle),
        }
    return drawn


def _root(scorer: Scorer, bodies: PosedSkins) -> Array:
    """The roots (K,1,3) m that a protocol compares people at; the origin where it compares them in the image."""
    points = scorer.bodies.points(bodies, scorer.protocol.points)
    return roots(points, scorer.protocol.root) if scorer.protocol.root else np.zeros((len(points), 1, 3))


def _seen(points: Any, root: Array) -> Array:
    """Points (N,3) m in the axes of the camera, about a root, as the viewer has them: y up, z towards the viewer."""
    seen: Array = (points - root) @ to_view("camera").T
    return seen
