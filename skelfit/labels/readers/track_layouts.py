"""The layouts of tracks, as data: whose files they are, where people are in them, and what their numbers mean.

Keys, shapes, units and frames are facts of the code that writes or reads these files; each entry names it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from skelfit.config.manifest import Gender, LabelLayout
from skelfit.labels.body_family import BodyModel
from skelfit.labels.label_batch import Coordinates
from skelfit.labels.readers import track_people as people
from skelfit.labels.readers.track_people import People, Person

# What a translation places. origin: SMPL's body as SMPL itself does. hips: the middle of the posed hips.
Place = Literal["origin", "hips"]


@dataclass(frozen=True)
class TrackView:
    """The keys of people in one kind of coordinates; of several names the first that a person has counts."""

    coordinates: Coordinates  # world_y_up: y is known to be up; unknown: a world, whose axis up is inferred
    pose: tuple[str, ...]  # all joints, or all but the root
    root: tuple[str, ...] = ()  # the root's rotation
    trans: tuple[str, ...] = ()  # m; (): no translation
    place: Place = "origin"
    turned: bool = False  # `turn` and `shift` are a movement about the origin of the body as SMPL places it
    scale: str = ""  # a number that translations are divided by


@dataclass(frozen=True)
class TrackLayout:
    """One layout of tracks."""

    layout: LabelLayout
    source: str  # the public code that the facts come from
    find: Callable[[Any], People | None]  # the people of a file; None: it has another layout
    needs: tuple[str, ...]  # keys that tell the layout: the people have them
    views: Mapping[str, TrackView]  # by what the option `coordinates` calls them; the first is the default
    betas: tuple[str, ...] = ("betas",)  # (): none, every body has betas of 0
    frames: tuple[str, ...] = ()  # numbers of the frames; (): without gaps
    images: bool = False  # whether people without numbers of frames are those of images
    model: BodyModel | None = None  # None: told by the keys and joints of the file
    gender: Gender | None = None  # of a body that is always used; None: as the user says
    frame_rate: float | None = None  # Hz, of all files of the layout
    adds: Callable[[Person], Person] = lambda person: {}  # what a person's keys hold in another form
    lacks: tuple[str, ...] = ()  # keys of another layout
    # What the file calls the keys that `find` and `adds` make, for messages.
    shown: Mapping[str, str] = field(default_factory=dict)
    flag: str = ""  # 0 in frames without a label in the camera
    notes: tuple[str, ...] = ()  # what is assumed and said


def _gvhmr(key: str, coordinates: Coordinates) -> TrackView:
    return TrackView(coordinates, (f"{key}.body_pose",), (f"{key}.global_orient",), (f"{key}.transl",))


TRACK_LAYOUTS = (
    TrackLayout(
        "gvhmr",
        "zju3dv/GVHMR: tools/demo/demo.py, hmr4d/model/gvhmr/gvhmr_pl_demo.py",
        people.whole_file,
        ("smpl_params_global.body_pose", "smpl_params_incam.body_pose"),
        {
            "world": _gvhmr("smpl_params_global", "world_y_up"),
            "camera": _gvhmr("smpl_params_incam", "camera"),
        },
        betas=("smpl_params_global.betas",),
        model="SMPL-X",
        adds=people.gvhmr_camera,
        shown={"cam_int": "K_fullimg"},
    ),
    TrackLayout(
        "wham",
        "yohanshin/WHAM: demo.py, lib/models/smpl.py",
        people.by_identity,
        ("pose", "betas", "trans"),
        {
            "world": TrackView("world_y_up", ("pose_world",), trans=("trans_world",), place="hips"),
            "camera": TrackView("camera", ("pose",), trans=("trans",)),
        },
        frames=("frame_ids",),
        model="SMPL",
        lacks=("pred_cam",),
    ),
    TrackLayout(
        "tram",
        "yufu-wang/tram: scripts/estimate_humans.py, lib/models/hmr_vimo.py",
        people.whole_file,
        ("pred_rotmat", "pred_shape", "pred_trans"),
        {"camera": TrackView("camera", ("pred_rotmat",), trans=("pred_trans",))},
        betas=("pred_shape",),
        frames=("frame",),
        model="SMPL",
    ),
    TrackLayout(
        "prompthmr",
        "yufu-wang/PromptHMR: pipeline/pipeline.py, pipeline/phmr_vid.py, pipeline/world.py",
        people.below_people,
        ("smplx_cam.rotmat", "smplx_cam.shape"),
        {
            "world": TrackView("world_y_up", ("smplx_world.pose",), trans=("smplx_world.trans",)),
            "camera": TrackView("camera", ("smplx_cam.rotmat",), trans=("smplx_cam.trans",)),
        },
        betas=("smplx_cam.shape",),
        frames=("frames",),
        model="SMPL-X",
        shown={"box": "bboxes"},
    ),
    TrackLayout(
        "slahmr",
        "vye16/slahmr: slahmr/optim/output.py, slahmr/optim/base_scene.py",
        people.by_first_axis,
        ("trans", "root_orient", "pose_body"),
        {
            "camera": TrackView("camera", ("pose_body",), ("root_orient",), ("trans",), turned=True),
            "world": TrackView("unknown", ("pose_body",), ("root_orient",), ("trans",)),
        },
        model="SMPL+H",
        lacks=("poses",),
        shown={"turn": "cam_R", "shift": "cam_t", "cam_int": "intrins"},
    ),
    TrackLayout(
        "phalp",
        "brjathu/PHALP: phalp/trackers/PHALP.py, phalp/models/hmar/hmar.py; shubham-goel/4D-Humans: track.py",
        people.by_frame,
        ("smpl.global_orient", "smpl.body_pose", "smpl.betas"),
        {"camera": TrackView("camera", ("smpl.body_pose",), ("smpl.global_orient",), ("camera",))},
        betas=("smpl.betas",),
        frames=("frames",),
        model="SMPL",
        shown={"box": "bbox", "cam_int": "size", "frames": "time"},
        notes=(
            "'camera': seen with a focal length of 5000/256 of the image's longer side, as PHALP fits it",
        ),
    ),
    TrackLayout(
        "vibe",
        "mkocabas/VIBE: demo.py, lib/utils/demo_utils.py",
        people.by_identity,
        ("pose", "betas", "pred_cam", "bboxes"),
        {"camera": TrackView("camera_axes", ("pose",))},
        frames=("frame_ids",),
        model="SMPL",
        adds=people.vibe_box,
        lacks=("smpl_joints2d",),
        shown={"box": "bboxes"},
    ),
    TrackLayout(
        "pare",
        "mkocabas/PARE: pare/core/tester.py",
        people.pare_people,
        ("pred_cam", "bboxes", "smpl_joints2d"),
        {"camera": TrackView("camera_axes", ("pose", "pred_pose"))},
        betas=("betas", "pred_shape"),
        frames=("frame_ids",),
        images=True,
        model="SMPL",
        adds=people.vibe_box,
        shown={"box": "bboxes"},
    ),
    TrackLayout(
        "romp",
        "Arthur151/ROMP: simple_romp/romp/main.py, simple_romp/romp/utils.py",
        people.romp_people,
        ("smpl_thetas", "smpl_betas"),
        {"camera": TrackView("camera", ("smpl_thetas",), trans=("cam_trans",))},
        betas=("smpl_betas",),
        frames=("frame_id",),
        images=True,
        model="SMPL",
        notes=(
            "'cam_trans': the translation in the camera that ROMP assumes, whose focal length the file lacks",
        ),
    ),
    TrackLayout(
        "3dpw",
        "mkocabas/VIBE: lib/data_utils/threedpw_utils.py",
        people.threedpw_people,
        ("poses", "betas", "trans", "turn"),
        {
            "camera": TrackView("camera", ("poses",), trans=("trans",), turned=True),
            "world": TrackView("unknown", ("poses",), trans=("trans",)),
        },
        model="SMPL",
        frame_rate=30.0,
        flag="campose_valid",
        shown={"turn": "cam_poses", "shift": "cam_poses", "cam_int": "cam_intrinsics"},
    ),
    TrackLayout(
        "aist",
        "google/aistplusplus_api: processing/run_estimate_smpl.py, demos/extract_motion_feats.py",
        people.whole_file,
        ("smpl_poses", "smpl_trans", "smpl_scaling"),
        {"world": TrackView("world_y_up", ("smpl_poses",), trans=("smpl_trans",), scale="smpl_scaling")},
        betas=(),
        model="SMPL",
        gender="male",
        frame_rate=60.0,
        notes=(
            "'smpl_scaling': translations are divided by it; every body is the mean male SMPL, as in AIST++",
        ),
    ),
    TrackLayout(
        "easymocap",
        "zju3dv/EasyMocap: easymocap/mytools/file_utils.py, easymocap/smplmodel/body_model.py",
        people.easymocap_people,
        ("Rh", "Th", "poses", "shapes"),
        {"world": TrackView("unknown", ("poses",), turned=True)},
        betas=("shapes",),
        frames=("frames",),
        images=True,
        adds=people.easymocap_pose,
        shown={"turn": "Rh", "shift": "Th"},
    ),
)
