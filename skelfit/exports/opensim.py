"""Files for OpenSim: a model of each person, SKEL's 46 angles over time, markers, clinical angles, and tools' setups.

A sequence gives one set of files, a row of its tables for each frame. Unrelated people give one set for each shard,
a row for each person, and then no model: docs/opensim.md.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from skelfit.bodies.dofs import SKEL_JOINT_NAMES
from skelfit.bodies.world_axes import up_axis
from skelfit.exports.exported_bodies import (
    GROUND_TEXT,
    Array,
    ExportedBodies,
    check_models,
    gravity_text,
)
from skelfit.exports.exporter import (
    Exporter,
    ExportOptions,
    ExportResult,
    FinitePeople,
    known_people,
    plural,
    selected_people,
)
from skelfit.exports.ground_files import contacts_text, events_text
from skelfit.exports.mesh_files import write_mesh
from skelfit.exports.motions import (
    TIME_STEP,
    assumed_rate_text,
    frame_rate,
    known_rate,
    motions_of,
    unused_name,
)
from skelfit.exports.opensim_files.angle_page import page_text
from skelfit.exports.opensim_files.motion import (
    AXIS_NAMES,
    CENTER_NAMES,
    MARKERS,
    OpenSimMotion,
    make_motion,
)
from skelfit.exports.opensim_files.motion_texts import mot_text, people_text, sto_text, trc_text
from skelfit.exports.opensim_files.person_model import PersonModel, person_model
from skelfit.exports.opensim_files.setup_texts import FEWEST_FRAMES, id_text, ik_text
from skelfit.exports.output_folder import prepare_folder, write_record
from skelfit.shards.finished_run import FinishedRun, Person
from skelfit.storage.hashed_write import write_atomically
from skelfit.storage.locations import Location
from skelfit.verification.measures.sequence_ground import SequenceGround


class OpenSimExporter(Exporter):
    """Tables for each sequence or shard; for each motion of one person also a model, setups and, in time, a page."""

    name = "opensim"
    endings = (".osim", ".mot", ".trc", ".sto", ".html", ".xml", ".csv", ".obj")
    summary = "a scaled model, .mot, .trc, clinical angles"
    needs_models = True
    selects_people = True
    in_time = True

    def count(self, run: FinishedRun, options: ExportOptions) -> int:
        return len(set(options.keys)) or min(options.limit or run.rows_out, run.rows_out)

    def write(self, run: FinishedRun, out: Location, options: ExportOptions) -> ExportResult:
        """Write the files into the folder `out`. Raises OutputError for an unknown key."""
        models = options.required_models()
        check_models(run, models)
        finite = FinitePeople(run)
        chosen = known_people(self._motions(finite, options, self.count(run, options)), options)
        prepare_folder(out, options.overwrite)
        folder, people, motions = _Folder(out, ExportedBodies(models)), 0, 0
        for name, rows in chosen:
            folder.add(name, rows, options.frame_rate)
            people, motions = people + len(rows), motions + 1
            options.step(len(rows))
        write_record(
            out,
            run,
            self.name,
            folder.files,
            time_step=TIME_STEP,
            ground=GROUND_TEXT,
            gravity={name: gravity_text(name) for name in sorted(folder.coordinates)},
            floors=folder.floors,
        )
        notes = (*folder.notes(people, motions, options.frame_rate), *finite.notes())
        return ExportResult(people, tuple(folder.files), notes, len(finite.left_out))

    def _motions(
        self, finite: FinitePeople, options: ExportOptions, count: int
    ) -> Iterator[tuple[str, list[Person]]]:
        """Selected people one by one; else those of each sequence, or of each shard. With names."""
        if options.keys or options.limit is not None:
            for person in selected_people(finite, options.keys, count):
                yield person.key, [person]
        else:
            yield from motions_of(finite)


class _Folder:
    """The folder of an export: the names that are used, and the models of people who are there already."""

    def __init__(self, out: Location, bodies: ExportedBodies) -> None:
        self.out, self.bodies = out, bodies
        self.files: list[str] = []
        self._used: set[str] = set()
        self._people: dict[tuple[str, bytes], tuple[PersonModel, dict[int, str]]] = {}
        self._with_model: list[str] = []
        self._mean_betas: list[str] = []
        self._mean_bodies: list[str] = []  # of labels that do not say the person's shape
        self._assumed = 0  # sequences whose labels have no frame rate
        self.coordinates: set[str] = set()  # of labels
        self._in_no_world = 0  # sequences under which gravity is not known
        self.floors: dict[str, dict[str, Any]] = {}  # what is known of the ground under each sequence

    def add(self, wanted: str, people: Sequence[Person], given_rate: float | None) -> None:
        """Write the files of one motion; given_rate: Hz, for labels that do not say it."""
        name = unused_name(wanted, self._used)
        genders = {str(person.meta["skel_gender"]) for person in people}
        motion = make_motion(name, people, self.bodies, frame_rate(people[0], given_rate))
        if motion.in_time and len(people) > 1 and len(genders) == 1:
            ground = self.bodies.ground(people, known_rate(people[0], given_rate))
            motion = replace(motion, sole_contact=ground)
            self._add_ground(name, ground)
        self.coordinates.add(motion.coordinates)
        self._in_no_world += motion.in_time and up_axis(motion.coordinates) is None
        self._write(f"{name}.mot", mot_text(motion))
        self._write(f"{name}.trc", trc_text(motion))
        self._write(f"{name}-clinical.sto", sto_text(motion))
        self._write(f"{name}.csv", people_text(motion, people))
        if motion.in_time:
            self._assumed += len(people) > 1 and people[0].meta["frame_rate"] is None
            self._write(f"{name}-angles.html", page_text(motion))
        betas = np.array([person.fields["skel_betas"] for person in people], np.float64)
        same = bool((betas == betas[0]).all())
        if len(genders) == 1 and (same or motion.in_time):
            self._add_model(motion, genders.pop(), betas[0] if same else betas.mean(0))
            if not any(person.fields["smpl_betas"].any() for person in people) and people[0].meta["smpl"]:
                self._mean_bodies.append(name)
            if not same:
                self._mean_betas.append(name)

    def _add_ground(self, name: str, ground: SequenceGround) -> None:
        """Write the tables of contacts and events, where a floor is known."""
        self.floors[name] = ground.summary()
        if ground.contacts is not None:
            self._write(f"{name}-contacts.csv", contacts_text(ground))
            self._write(f"{name}-events.csv", events_text(ground))

    def _add_model(self, motion: OpenSimMotion, gender: str, betas: Array) -> None:
        """Write the model of a person of shape betas (10,), and the setups of tools."""
        name, identity = motion.name, (gender, betas.tobytes())
        if identity not in self._people:
            model = person_model(self.bodies.skel(gender), betas)
            # Without the meshes: an export may hold thousands of people.
            self._people[identity] = replace(model, bones={}), self._write_bones(name, model)
        model, bones = self._people[identity]
        times = float(motion.times[0]), float(motion.times[-1])
        floor = None if motion.sole_contact is None else motion.sole_contact.floor
        self._write(f"{name}.osim", model.text(name, bones, None if floor is None else floor.height))
        tracked = (*CENTER_NAMES, *AXIS_NAMES)
        self._write(f"{name}-ik.xml", ik_text(name, f"{name}.osim", times, tracked, tuple(MARKERS)))
        if motion.in_time and len(motion.times) >= FEWEST_FRAMES:
            self._write(f"{name}-id.xml", id_text(name, f"{name}.osim", times))
        self._with_model.append(name)

    def _write_bones(self, name: str, model: PersonModel) -> dict[int, str]:
        files = {}
        for joint, (vertices, faces) in model.bones.items():
            files[joint] = f"{name}-bones/{SKEL_JOINT_NAMES[joint]}.obj"
            write_mesh(self.out / files[joint], vertices, faces.astype(np.int32))
        self.files += files.values()
        return files

    def _write(self, name: str, text: str) -> None:
        write_atomically(self.out / name, lambda stream: stream.write(text.encode()))
        self.files.append(name)

    def notes(self, people: int, motions: int, given_rate: float | None) -> tuple[str, ...]:
        """Lines for the terminal."""
        models = len(self._with_model)
        counted = f"{plural(people, 'person', 'people')} in {plural(motions, 'motion')} in {self.out}"
        lines = [f"{counted}, {models} of them with a model (.osim)" if motions > 1 or not models else
                 f"{counted}, with a model (.osim)"]  # fmt: skip
        if self._assumed and given_rate is None:
            lines.append(assumed_rate_text(self._assumed))
        if self._mean_bodies:
            others = len(self._mean_bodies) - 1
            more = f" (and those of {plural(others, 'motion')} more)" if others else ""
            lines.append(
                f"  warning: the labels of {self._mean_bodies[0]}{more} have betas of 0, as of SMPL-X's parameters: "
                "the model has the mean person's size, not this person's"
            )
        if self._in_no_world:
            several = plural(self._in_no_world, "sequence")
            lines.append(f"  {several} in no world: gravity is not known, and taken to be along -y")
        if counts := Counter(floor["status"] for floor in self.floors.values()):
            known = ", ".join(f"{status} {count}" for status, count in sorted(counts.items()))
            lines.append(f"  floor and contacts of the feet: {known}")
        if self._mean_betas:
            others = len(self._mean_betas) - 1
            more = f" (and of {others} more)" if others else ""
            lines.append(f"  frames of {self._mean_betas[0]}{more} differ in betas: its model has their mean")
        if models == 0:
            lines += [
                "  a motion of several people has none; --key KEY or --limit N writes people one by one",
                "next: plot a .mot, or scale a model with markers of your own to a .trc (docs/opensim.md)",
            ]
        else:
            name = self._with_model[0]
            lines.append(
                f"next: open {name}.osim in OpenSim, and load the motion {name}.mot (docs/opensim.md)"
            )
        return tuple(lines)
