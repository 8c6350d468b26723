"""The formats of `skelfit export`, by name. A new exporter is added here."""

from __future__ import annotations

from collections.abc import Mapping

from skelfit.exports.animation import AnimationExporter
from skelfit.exports.animation_files.motion_files import BvhFiles, GlbFiles
from skelfit.exports.exporter import Exporter
from skelfit.exports.hsmr import HsmrExporter
from skelfit.exports.mesh_files import MeshExporter
from skelfit.exports.opensim import OpenSimExporter
from skelfit.exports.parquet import ParquetExporter
from skelfit.exports.skel_cf import SkelCfExporter
from skelfit.exports.smpl_labels import SmplExporter

EXPORTERS: Mapping[str, Exporter] = {
    exporter.name: exporter
    for exporter in (
        SkelCfExporter(), SmplExporter(), ParquetExporter(), HsmrExporter(), OpenSimExporter(),
        AnimationExporter(GlbFiles), AnimationExporter(BvhFiles), MeshExporter("obj"), MeshExporter("ply"),
    )
}  # fmt: skip
