"""Setup files with which OpenSim's tools open a motion: inverse kinematics and inverse dynamics."""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree import ElementTree

from skelfit.exports.opensim_files.osim_text import DOCUMENT_VERSION, xml_text

CUTOFF = 6.0  # Hz, of the low-pass filter of inverse dynamics; usual for walking
FEWEST_FRAMES = 4  # of inverse dynamics: OpenSim's spline of the filtered angles refuses fewer


def ik_text(
    name: str, model: str, times: tuple[float, float], tracked: Sequence[str], free: Sequence[str]
) -> str:
    """Inverse kinematics of NAME.trc: markers that are `tracked`, and others that are left `free`."""
    document, tool = _tool("InverseKinematicsTool", f"{name}_ik", model, times)
    _add(tool, "results_directory", ".")
    _add(tool, "accuracy", "1e-07")
    _add(tool, "marker_file", f"{name}.trc")
    _add(tool, "output_motion_file", f"{name}_ik.mot")
    tasks = ElementTree.SubElement(tool, "IKTaskSet", name="iktaskset")
    objects = ElementTree.SubElement(tasks, "objects")
    for marker in (*tracked, *free):
        task = ElementTree.SubElement(objects, "IKMarkerTask", name=marker)
        _add(task, "apply", "true" if marker in tracked else "false")
        _add(task, "weight", "1")
    return xml_text(document)


def id_text(name: str, model: str, times: tuple[float, float]) -> str:
    """Inverse dynamics of NAME.mot, without forces of the ground."""
    document, tool = _tool("InverseDynamicsTool", f"{name}_id", model, times)
    _add(tool, "results_directory", ".")
    _add(tool, "forces_to_exclude", "Muscles")
    _add(tool, "coordinates_file", f"{name}.mot")
    _add(tool, "lowpass_cutoff_frequency_for_coordinates", f"{CUTOFF:g}")
    _add(tool, "output_gen_force_file", f"{name}_id.sto")
    return xml_text(document)


def _tool(
    kind: str, name: str, model: str, times: tuple[float, float]
) -> tuple[ElementTree.Element, ElementTree.Element]:
    document = ElementTree.Element("OpenSimDocument", Version=DOCUMENT_VERSION)
    tool = ElementTree.SubElement(document, kind, name=name)
    _add(tool, "model_file", model)
    _add(tool, "time_range", f"{times[0]:.8f} {times[1]:.8f}")
    return document, tool


def _add(parent: ElementTree.Element, name: str, text: str) -> None:
    ElementTree.SubElement(parent, name).text = text
