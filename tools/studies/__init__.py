"""The studies of `python -m tools.studies NAME`, one module each. To add one, write its module and list it here."""

from __future__ import annotations

from tools.studies import (
    ablations,
    ambiguities,
    betas,
    bones,
    extreme,
    image_libraries,
    images,
    job_speed,
    limits,
    loader,
    loader_speed,
    mesh,
    neutral,
    protocol,
    refine,
    rivals,
    root,
    scheduler_load,
    sensitivity,
    sequences,
    shoulders,
    spine,
)
from tools.studies.setup import Study

STUDIES: dict[str, Study] = {
    "extreme": extreme.STUDY,
    "sensitivity": sensitivity.STUDY,
    "mesh": mesh.STUDY,
    "limits": limits.STUDY,
    "betas": betas.STUDY,
    "neutral": neutral.STUDY,
    "bones": bones.STUDY,
    "protocol": protocol.STUDY,
    "root": root.STUDY,
    "rivals": rivals.STUDY,
    "shoulders": shoulders.STUDY,
    "spine": spine.STUDY,
    "ambiguities": ambiguities.STUDY,
    "images": images.STUDY,
    "image-libraries": image_libraries.STUDY,
    "job-speed": job_speed.STUDY,
    "loader": loader.STUDY,
    "loader-speed": loader_speed.STUDY,
    "ablations": ablations.STUDY,
    "refine": refine.STUDY,
    "scheduler-load": scheduler_load.STUDY,
    "sequences": sequences.STUDY,
}
