"""A person's model as the text of a `.osim`: bodies, joints with SKEL's 46 angles, markers.

Written as OpenSim 4's documentation of CustomJoint and of its functions describes it; OpenSim itself is not needed.
A rotation's first axis is the outermost one. Translations are along axes of the joint's frame in the parent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from xml.etree import ElementTree

import numpy as np
from scipy.spatial.transform import Rotation

from skelfit.bodies.dofs import DOFS, SKEL_JOINT_NAMES, SKEL_PARENTS
from skelfit.exports.opensim_files.person_rig import ORDER, Array, PersonRig, Slide
from skelfit.exports.opensim_files.segment_masses import SegmentMasses

# Of the format of OpenSim 4. Tested with 4.6, which reads it and writes later ones.
DOCUMENT_VERSION = "40000"
GRAVITY = 9.80665  # m/s2
ROOT_TRANSLATIONS = ("pelvis_tx", "pelvis_ty", "pelvis_tz")
_ROOT_RANGE = (-5.0, 5.0)  # m, for the sliders of OpenSim's window; values beyond it are not cut off
_TURN = np.pi  # rad, the same for the pelvis's angles, which have no limits
_Element = ElementTree.Element


@dataclass(frozen=True)
class ModelMarker:
    """A marker that is fixed to a body."""

    name: str
    joint: int  # whose body
    position: Array  # (3,) m in the body's frame


def osim_text(
    name: str,
    rig: PersonRig,
    masses: SegmentMasses,
    bones: Mapping[int, str],
    markers: Sequence[ModelMarker],
    standing_height: float,
    floor: float | None = None,
) -> str:
    """The text of a model. bones: mesh file of each body that has one, relative to the model.

    standing_height: of the pelvis joint above the ground's origin in the default pose, m. floor: where the feet of its
    motion rest, m above that origin; None: not known.
    """
    document = _Element("OpenSimDocument", Version=DOCUMENT_VERSION)
    model = ElementTree.SubElement(document, "Model", name=name)
    _add(model, "credits", "Written by skelfit from the shape parameters of SKEL (Keller et al., 2023).")
    _add(model, "length_units", "meters")
    _add(model, "force_units", "N")
    _add(model, "gravity", _numbers((0.0, -GRAVITY, 0.0)))
    bodies, joints, marked = (
        ElementTree.SubElement(ElementTree.SubElement(model, kind, name=kind.lower()), "objects")
        for kind in ("BodySet", "JointSet", "MarkerSet")
    )
    for j in range(len(SKEL_JOINT_NAMES)):
        bodies.append(_body(j, masses, bones.get(j)))
        joints.append(_joint(j, rig, standing_height))
    marked.extend(map(_marker, markers))
    if floor is not None:
        geometry = ElementTree.SubElement(model, "ContactGeometrySet", name="contactgeometryset")
        ElementTree.SubElement(geometry, "objects").append(_half_space(floor))
    return xml_text(document)


def xml_text(document: _Element) -> str:
    """An XML file's text, indented."""
    ElementTree.indent(document, "  ")
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(document, "unicode") + "\n"


def _half_space(height: float) -> _Element:
    """A level floor, for contact forces of the user: the model has none. OpenSim fills the side of positive x."""
    space = _Element("ContactHalfSpace", name="floor")
    _add(space, "socket_frame", "/ground")
    _add(space, "location", _numbers([0.0, height, 0.0]))
    _add(space, "orientation", _numbers([0.0, 0.0, -np.pi / 2]))
    return space


def _body(joint: int, masses: SegmentMasses, bone: str | None) -> _Element:
    body = _Element("Body", name=SKEL_JOINT_NAMES[joint])
    if bone is not None:
        geometry = ElementTree.SubElement(body, "attached_geometry")
        mesh = ElementTree.SubElement(geometry, "Mesh", name=f"{SKEL_JOINT_NAMES[joint]}_bones")
        _add(mesh, "socket_frame", "..")
        _add(mesh, "mesh_file", bone)
    inertia = masses.inertia[joint]
    _add(body, "mass", _numbers([masses.mass[joint]]))
    _add(body, "mass_center", _numbers(masses.center[joint]))
    _add(body, "inertia", _numbers([*np.diag(inertia), inertia[0, 1], inertia[0, 2], inertia[1, 2]]))
    return body


def _joint(joint: int, rig: PersonRig, standing_height: float) -> _Element:
    name, parent = SKEL_JOINT_NAMES[joint], SKEL_PARENTS[joint]
    element = _Element("CustomJoint", name=f"{name}_joint")
    _add(element, "socket_parent_frame", "parent_offset")
    _add(element, "socket_child_frame", "child_offset")
    coordinates = ElementTree.SubElement(element, "coordinates")
    for dof in (dof for dof in DOFS if dof.joint == joint):
        limits = dof.limits if np.isfinite(dof.limits).all() else (-_TURN, _TURN)
        coordinates.append(_coordinate(dof.name, 0.0, limits))
    position, orientation = (np.zeros(3), np.eye(3)) if parent < 0 else rig.offset(joint)
    slides: Sequence[Slide | str | None] = rig.slides.get(joint, (None, None, None))
    if parent < 0:
        slides = ROOT_TRANSLATIONS
        for translation, default in zip(ROOT_TRANSLATIONS, (0.0, standing_height, 0.0), strict=True):
            coordinates.append(_coordinate(translation, default, _ROOT_RANGE))
    frames = ElementTree.SubElement(element, "frames")
    where = "/ground" if parent < 0 else f"/bodyset/{SKEL_JOINT_NAMES[parent]}"
    frames.append(_frame("parent_offset", where, position, orientation))
    frames.append(_frame("child_offset", f"/bodyset/{name}", np.zeros(3), np.eye(3)))
    spatial = ElementTree.SubElement(element, "SpatialTransform")
    turns: list[tuple[str | None, Array]] = [*rig.turns(joint)]
    turns += [(None, axis) for axis in _other_axes([axis for _, axis in turns])]
    for k, (coordinate, axis) in enumerate(turns):
        spatial.append(_linear(f"rotation{k + 1}", coordinate, axis))
    for k, slide in enumerate(slides):
        title, axis = f"translation{k + 1}", np.eye(3)[k]
        spatial.append(_slide(title, slide) if isinstance(slide, Slide) else _linear(title, slide, axis))
    return element


def _other_axes(axes: Sequence[Array]) -> list[Array]:
    """Axes at right angles to those of a joint's coordinates: three in all, with no rotation about these."""
    missing = 3 - len(axes)
    return [] if missing == 0 else [*np.linalg.svd(np.array(axes))[2][-missing:]]


def _coordinate(name: str, default: float, limits: Sequence[float]) -> _Element:
    element = _Element("Coordinate", name=name)
    _add(element, "default_value", _numbers([default]))
    _add(element, "range", _numbers(limits))
    _add(element, "clamped", "false")  # a fit may end beyond a limit
    return element


def _frame(name: str, parent: str, position: Array, orientation: Array) -> _Element:
    element = _Element("PhysicalOffsetFrame", name=name)
    _add(element, "socket_parent", parent)
    _add(element, "translation", _numbers(position))
    _add(element, "orientation", _numbers(Rotation.from_matrix(orientation).as_euler("XYZ")))
    return element


def _linear(title: str, coordinate: str | None, axis: Array) -> _Element:
    """A rotation about an axis, or a translation along it, by a coordinate; by nothing where there is none."""
    element = _axis(title, () if coordinate is None else (coordinate,), axis)
    if coordinate is None:
        _add(ElementTree.SubElement(element, "Constant", name="function"), "value", "0")
    else:
        function = ElementTree.SubElement(element, "LinearFunction", name="function")
        _add(function, "coefficients", "1 0")
    return element


def _slide(title: str, slide: Slide) -> _Element:
    element = _axis(title, slide.coordinates, slide.axis)
    if len(slide.coordinates) == 1:
        function = ElementTree.SubElement(element, "PolynomialFunction", name="function")
        _add(function, "coefficients", _numbers(slide.coefficients[::-1]))  # the highest power first
        return element
    function = ElementTree.SubElement(element, "MultivariatePolynomialFunction", name="function")
    powers = [(i, k) for i in range(ORDER + 1) for k in range(ORDER + 1 - i)]
    _add(function, "coefficients", _numbers([slide.coefficients[power] for power in powers]))
    _add(function, "dimension", "2")
    _add(function, "order", str(ORDER))
    return element


def _axis(title: str, coordinates: Sequence[str], axis: Array) -> _Element:
    element = _Element("TransformAxis", name=title)
    _add(element, "coordinates", " ".join(coordinates))
    _add(element, "axis", _numbers(axis))
    return element


def _marker(marker: ModelMarker) -> _Element:
    element = _Element("Marker", name=marker.name)
    _add(element, "socket_parent_frame", f"/bodyset/{SKEL_JOINT_NAMES[marker.joint]}")
    _add(element, "location", _numbers(marker.position))
    _add(element, "fixed", "true")
    return element


def _add(parent: _Element, name: str, text: str) -> None:
    ElementTree.SubElement(parent, name).text = text


def _numbers(values: Sequence[float] | Array) -> str:
    return " ".join(f"{float(value) + 0.0:.12g}" for value in values)
