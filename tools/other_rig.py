"""The open body on another rig: a second pair of SMPL and SKEL, to measure methods on other bodies.

Legs are longer, trunk and arms shorter, chests deeper; both bodies have other joints, other skinning weights and other
shape vectors, and stronger pose correctives. SKEL's skin is smoother than SMPL's, so the two differ
everywhere. Same topology, frame, units and symmetry as the open body.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from skelfit.bodies.model_set import ModelSet, models_from_official, save_models
from skelfit.bodies.open_body import JOINTS, SKEL_PARENTS, SMPL_PARTNER, open_body_models, write_official
from tools.open_body_build.skel_rig import PARTNER as SKEL_PARTNER
from tools.open_body_build.skel_rig import apose

Array = NDArray[np.float64]
Model = dict[str, Any]

_SEED = 17
_SMPL_SHIFT, _SKEL_SHIFT = 0.008, 0.010  # m, standard deviation of a joint's position in each direction
_MIXING = 0.35  # rad, how far shape vectors are turned into one another
_CORRECTIVES = 1.2  # times the open body's
_SMPL_ROUNDS, _SKEL_ROUNDS = 6, 1  # of smoothing the weights over the mesh
_SKEL_POWER = 1.4  # of SKEL's weights, before: above 1 joints share less
_MOST = {"smpl": 4, "skel": 5}  # weights a vertex
_SMOOTHER = 0.5  # share of the distance to the mean of the neighbours


def other_rig(models: dict[str, Model]) -> dict[str, Model]:
    """The other pair of models, in the schemas of `open_body_models`."""
    edges = _neighbours(models["smpl_neutral"]["f"])
    others = {}
    for name, model in models.items():
        kind = name.split("_")[0]
        others[name] = _smpl(model, edges) if kind == "smpl" else _skel(model, edges)
    return others


def _smpl(model: Model, edges: sparse.csr_matrix) -> Model:
    template, shapes = _stretched(model["v_template"], model["shapedirs"])
    regressor = _moved_joints(model["J_regressor"], template, _shifts(_SMPL_SHIFT, SMPL_PARTNER))
    return model | {
        "v_template": template.astype(np.float32),
        "shapedirs": shapes.astype(np.float32),
        "posedirs": np.float32(_CORRECTIVES) * model["posedirs"],
        "J_regressor": regressor,
        "weights": _settled(model["weights"], edges, _SMPL_ROUNDS, 1.0, _MOST["smpl"]),
    }


def _skel(model: Model, edges: sparse.csr_matrix) -> Model:
    template, shapes = _stretched(model["skin_template_v"], model["shapedirs"])
    template = (1 - _SMOOTHER) * template + _SMOOTHER * (edges @ template)
    flat = shapes.reshape(len(shapes), -1)
    shapes = ((1 - _SMOOTHER) * flat + _SMOOTHER * (edges @ flat)).reshape(shapes.shape)
    osim = _moved_joints(model["J_regressor_osim"], template, _shifts(_SKEL_SHIFT, SKEL_PARTNER))
    weights = model["skin_weights"].toarray()
    joints = osim @ template
    rel, per_joint = apose(joints)
    whole, tpose = rel.copy(), np.tile(np.eye(4), (JOINTS, 1, 1))
    for j, parent in enumerate(SKEL_PARENTS):
        if parent >= 0:
            whole[j] = whole[parent] @ rel[j]
    tpose[:, :3, :3], tpose[:, :3, 3] = per_joint, joints
    return model | {
        "skin_template_v": template.astype(np.float32),
        "shapedirs": shapes.astype(np.float32),
        "posedirs": np.float32(_CORRECTIVES) * model["posedirs"],
        "J_regressor": _moved_joints(model["J_regressor"], template, _shifts(_SMPL_SHIFT, SMPL_PARTNER)),
        "J_regressor_osim": osim,
        "skin_weights": sparse.coo_matrix(_settled(weights, edges, _SKEL_ROUNDS, _SKEL_POWER, _MOST["skel"])),
        "per_joint_rot": per_joint,
        "apose_rel_transfo": rel,
        "apose_transfo": whole,
        "tpose_transfo": tpose,
    }


def _stretched(template: NDArray[Any], shapes: NDArray[Any]) -> tuple[Array, Array]:
    """Template (V, 3) and shape vectors (V, 3, K) of other proportions, the latter turned into one another."""
    x, y, z = template.astype(np.float64).T
    # Each coordinate by itself, with a gain that changes smoothly from one number to another at a position (m).
    across, gain_x = _stretch(np.abs(x), 1.04, 0.94, 0.22, 0.05)
    along, gain_y = _stretch(y, 1.07, 0.96, -0.25, 0.08)
    points = np.stack((np.sign(x) * (across - _stretch(0.0, 1.04, 0.94, 0.22, 0.05)[0]), along, 1.05 * z), 1)
    gain = np.stack((gain_x, gain_y, np.full_like(z, 1.05)), 1)
    rng = np.random.default_rng(_SEED)
    skew = rng.standard_normal((shapes.shape[2],) * 2)
    turn, _ = np.linalg.qr(np.eye(len(skew)) + _MIXING * (skew - skew.T))
    turn *= np.sign(np.diag(turn))
    return points, (gain[:, :, None] * shapes) @ turn


def _stretch(x: Any, low: float, high: float, position: float, width: float) -> tuple[Any, Any]:
    """The coordinate x stretched by `low` before a position and by `high` behind it, and the gain there."""
    u = (x - position) / width
    return low * x + (high - low) * width * np.logaddexp(0.0, u), low + (high - low) / (1 + np.exp(-u))


def _shifts(spread: float, partner: Any) -> Array:
    """The shifts of the joints, (24, 3) m, mirrored."""
    shift = np.random.default_rng(_SEED).normal(0.0, spread, (JOINTS, 3))
    return 0.5 * (shift + shift[np.asarray(partner)] * [-1, 1, 1])


def _moved_joints(regressor: sparse.spmatrix, template: Array, shift: Array) -> sparse.coo_matrix:
    """The regressor (24, V) whose joints are moved by shift (24, 3) m, by the least change of the weights it has."""
    rows = regressor.toarray()
    for row, off in zip(rows, shift, strict=True):
        near = np.flatnonzero(row)
        # Weights that add up as before, and a joint that is moved.
        points = np.concatenate((template[near] - template[near].mean(0), np.ones((len(near), 1))), 1)
        row[near] += points @ np.linalg.solve(points.T @ points, np.append(off, 0.0))
    return sparse.coo_matrix(rows)


def _neighbours(faces: NDArray[Any]) -> sparse.csr_matrix:
    """(V, V), the mean of a vertex' neighbours on the mesh."""
    a, b = np.concatenate([faces[:, [i, j]] for i, j in ((0, 1), (1, 2), (2, 0))]).T
    count = int(faces.max()) + 1
    touching = sparse.coo_matrix((np.ones(2 * len(a)), (np.append(a, b), np.append(b, a))), (count, count))
    touching = (touching.tocsr() > 0).astype(np.float64)
    return sparse.diags(1 / np.asarray(touching.sum(1)).ravel()) @ touching


def _settled(weights: Array, edges: sparse.csr_matrix, rounds: int, power: float, most: int) -> Array:
    """Weights (V, 24) raised to a power, smoothed over the mesh, of which the `most` largest are kept."""
    weights = weights**power
    for _ in range(rounds):
        weights = 0.5 * weights + 0.5 * (edges @ weights)
    next_one = np.sort(weights, axis=1)[:, [-most - 1]]  # what ties with it goes, too
    kept = np.where(weights > np.maximum(next_one, 2e-3), weights, 0.0)
    normalised: Array = kept / kept.sum(1, keepdims=True)
    return normalised


def other_models() -> ModelSet:
    """The open body on another rig, as a set of models."""
    return models_from_official(other_rig(open_body_models()), "open body on another rig")


@click.command("python -m tools.other_rig")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="A new folder for the files.")
@click.option("--official", is_flag=True, help="Write files in the official SMPL and SKEL v1.1.1 schemas.")
def write_other_rig(out: Path, official: bool) -> None:
    """Write the open body on another rig: a second pair of SMPL and SKEL, to measure methods on."""
    if out.exists():
        raise click.BadParameter(f"{out}: exists already", param_hint="--out")
    if official:
        out.mkdir(parents=True)
        write_official(other_rig(open_body_models()), out)
    else:
        save_models(other_models(), out)
    click.echo(out)


if __name__ == "__main__":
    write_other_rig()
