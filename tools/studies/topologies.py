"""Meshes of other topologies: how much a vertex map adds to the error of the fit.

The bodies are made from SMPL's by known maps, so that SMPL's true mesh is known. Their maps are built, as
`skelfit models map` builds them, from the mean bodies alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from skelfit.benchmark.text_table import table
from skelfit.bodies.skel import SkelModel
from skelfit.bodies.smpl import SmplModel
from skelfit.bodies.vertex_maps import build_vertex_map
from skelfit.fitting.backends.backend import make_backend
from skelfit.fitting.mesh_fitter import MeshFitter
from skelfit.labels.demo_people import sample_labels
from tools.studies.other_bodies import edge_body, face_body
from tools.studies.setup import SEED, Setup, Study

_BODIES = {"edges, in m": edge_body, "triangles, in cm": face_body}
_MOST = 1.1  # times the map's error, that it may add to the fit's


def run(setup: Setup) -> list[dict[str, Any]]:
    """Mean distances from SMPL's true meshes: of the mapped meshes, of SKEL fitted to the true ones, and to them."""
    records = []
    for gender in setup.genders:
        smpl, model = setup.models.smpl_of(gender), SkelModel(setup.models.skel_of(gender))
        pose, betas, pelvis = (torch.tensor(x) for x in sample_labels(setup.people, SEED, 0.0))
        skins = SmplModel(smpl).vertices(pose, betas, pelvis)
        fitter = MeshFitter(model, setup.fit, backend=make_backend(setup.device))
        setup.say(f"{setup.people} {gender} meshes of SMPL")
        exact = _from_truth(model, fitter, skins, skins)
        for name, make in _BODIES.items():
            body = make(smpl.faces)
            template = body.of(smpl.v_template[None].astype(np.float64))[0]
            setup.say(f"{setup.people} {gender} meshes of {len(template)} vertices")
            vertex_map, report = build_vertex_map(
                template, body.faces, smpl.v_template.astype(np.float64), smpl.faces.astype(np.int64)
            )
            meshes = body.of(skins.double().numpy()).astype(np.float32)
            mapped = torch.from_numpy(vertex_map.apply(meshes)) / body.per_metre
            records.append(
                {
                    "gender": gender,
                    "body": name,
                    "vertices": len(template),
                    "meshes": setup.people,
                    "templates_mm": 1000 * float(report.distance.mean()),
                    "map_mm": _mean_mm(mapped, skins),
                    "fit_mm": exact,
                    "both_mm": _from_truth(model, fitter, mapped, skins),
                }
            )
    return records


@torch.no_grad()
def _from_truth(model: SkelModel, fitter: MeshFitter, targets: Tensor, skins: Tensor) -> float:
    """The mean distance in mm of SKEL, fitted to target meshes (N,V,3) m, from the true ones."""
    found = fitter.fit(targets)
    fitted = [
        model.forward(model.shape(betas[None]), pose[None], trans[None]).vertices[0]
        for betas, pose, trans in zip(found.betas, found.poses, found.trans, strict=True)
    ]
    return _mean_mm(torch.stack(fitted), skins)


def _mean_mm(one: Tensor, other: Tensor) -> float:
    return 1000 * float((one - other).norm(dim=-1).double().mean())


def text(records: list[dict[str, Any]]) -> list[str]:
    """A row per gender and body."""
    heads = ("gender", "body", "vertices", "meshes", "map, mm", "fit, mm", "both, mm", "added / map")
    rows = [
        (r["gender"], r["body"], r["vertices"], r["meshes"])
        + tuple(f"{r[key]:.2f}" for key in ("map_mm", "fit_mm", "both_mm"))
        + (f"{(r['both_mm'] - r['fit_mm']) / r['map_mm']:.0%} (aim: at most {_MOST:.0%})",)
        for r in records
    ]
    return table(heads, rows)


STUDY = Study("meshes of other topologies, through vertex maps", 100, ("male",), run, text)
