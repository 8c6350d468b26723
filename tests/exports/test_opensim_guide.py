"""The guide docs/opensim.md: its commands take a walk from an estimator's file to OpenSim, whose tools run on it."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import joblib
import numpy as np
import pytest
from click.testing import CliRunner
from glb_player import GlbPlayer
from scipy.spatial.transform import Rotation

from skelfit.bodies.dofs import DOF_NAMES
from skelfit.cli import main
from tools.studies.motions import make_motion

GUIDE = Path(__file__).parents[2] / "docs" / "opensim.md"
FRAMES = 36  # at 30 Hz
NAME = "wham_output-0"


def guide_commands() -> list[list[str]]:
    """The words of the commands of the guide's first block, without the program's name."""
    block = re.search(r"## A walk.*?```bash\n(.*?)```", GUIDE.read_text("utf-8"), re.S)
    assert block
    lines = [shlex.split(line) for line in block[1].splitlines()]
    assert all(words[0] == "skelfit" for words in lines)
    return [words[1:] for words in lines]


def write_wham(path: Path) -> None:
    """A walk with the keys of WHAM's demo, whose world has y up (yohanshin/WHAM, demo.py)."""
    motion = make_motion("walk")
    rows = slice(0, FRAMES * 4, 4)  # of 120 Hz
    to_y_up, pose = Rotation.from_euler("x", -90, degrees=True), motion.pose[rows].copy()
    pose[:, 0] = (to_y_up * Rotation.from_rotvec(pose[:, 0])).as_rotvec()
    pose, trans = pose.reshape(FRAMES, 72), to_y_up.apply(motion.transl[rows]).astype(np.float32)
    person = {
        "pose": pose,
        "trans": trans,
        "pose_world": pose,
        "trans_world": trans,
        "betas": motion.betas[rows],
        "verts": np.zeros((FRAMES, 6890, 3), np.float32),
        "frame_ids": np.arange(FRAMES),
    }
    joblib.dump({0: person}, path)


@pytest.mark.skipif(find_spec("opensim") is None, reason="OpenSim is not installed")
def test_three_commands_take_a_walk_to_opensim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SKELFIT_MODELS", raising=False)
    write_wham(Path("wham_output.pkl"))
    commands = guide_commands()
    assert len(commands) == 3
    for words in commands:
        result = CliRunner().invoke(main, words)
        assert result.exit_code == 0, result.output
    out = Path("walk-opensim")
    assert {f"{NAME}{end}" for end in (".osim", ".mot", ".trc", "-clinical.sto", "-angles.html")} <= {
        path.name for path in out.iterdir()
    }
    player = GlbPlayer(Path("walk-glb") / f"{NAME}.glb")
    assert len(player.times()) == FRAMES and player.times()[-1] == pytest.approx((FRAMES - 1) / 30)
    names = (*DOF_NAMES, "pelvis_tx", "pelvis_ty", "pelvis_tz")
    still = np.zeros((1, 49))
    np.savez(out / "states.npz", names=names, values=still, speeds=still, accelerations=still)
    script = Path(__file__).parents[1] / "support" / "opensim_runs.py"
    command = [sys.executable, str(script), NAME, "states.npz", "opened.npz"]
    done = subprocess.run(command, cwd=out, timeout=300, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    opened = dict(np.load(out / "opened.npz"))

    np.testing.assert_allclose(opened["gravity"], [0, -9.80665, 0])
    floor = json.loads((out / "export.json").read_text("utf-8"))["floors"][NAME]
    assert floor["status"] == "no_rest"  # feet hardly rest in this made-up walk: no floor
    assert np.isnan(opened["floor"]).all()
    columns = opened["coordinates"].tolist()
    lines = (out / f"{NAME}.mot").read_text().splitlines()
    labels = lines[lines.index("endheader") + 1].split("\t")
    numbers = np.array([line.split("\t") for line in lines[lines.index("endheader") + 2 :]], float)
    assert len(numbers) == FRAMES
    wanted = numbers[:, [labels.index(name) for name in columns]]
    np.testing.assert_allclose(opened["ik"], wanted, atol=0.1)  # degrees; without any scaling
    assert np.ptp(wanted[:, columns.index("knee_angle_r")]) > 40
    points = np.array(
        [line.split("\t") for line in (out / f"{NAME}.trc").read_text().splitlines()[6:]], float
    )
    points = points[:, 2:].reshape(FRAMES, -1, 3)[:, :24]
    assert np.linalg.norm(opened["markers"][:, :24] - points, axis=-1).max() < 1e-3
    pelvis = np.array([player.matrices(time)["pelvis"][:3, 3] for time in player.times()])
    to_viewer = pelvis[:, [2, 1, 0]] * [1, 1, -1]  # OpenSim's x is forward, which is glTF's z
    np.testing.assert_allclose(to_viewer, points[:, 0], atol=1e-3)
    # Nothing but the pelvis carries the person: over a stride the mean force is the weight.
    lift = opened["id_forces"][:, columns.index("pelvis_ty")]
    assert lift.mean() == pytest.approx(9.80665 * opened["mass"], rel=0.06)
