"""People in motion for animation tools and viewers: one file for each sequence, or for a person of none."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

from skelfit.exports.animation_files.motion_files import BvhFiles, GlbFiles
from skelfit.exports.exported_bodies import ExportedBodies, check_models, coordinates_of, gravity_text
from skelfit.exports.exporter import (
    Exporter,
    ExportOptions,
    ExportResult,
    FinitePeople,
    known_people,
    plural,
    selected_people,
)
from skelfit.exports.mesh_files import DEFAULT_LIMIT
from skelfit.exports.motions import assumed_rate_text, frame_rate, known_rate, motions_of, unused_name
from skelfit.exports.output_folder import prepare_folder, write_record
from skelfit.shards.finished_run import FinishedRun, Person
from skelfit.storage.hashed_write import write_atomically
from skelfit.storage.locations import Location


class AnimationExporter(Exporter):
    """A file for each sequence, and for each of the first people who are in none; or for each that is asked for.

    Metres; y up, z towards the camera, x to the right of the image; where labels have no camera, y up and z forward.
    """

    needs_models = True
    selects_people = True
    in_time = True

    def __init__(self, form: type[GlbFiles] | type[BvhFiles]) -> None:
        self.form = form
        self.name, self.summary = form.name, form.summary
        self.endings = (f".{form.name}",)

    def count(self, run: FinishedRun, options: ExportOptions) -> int:
        return len(set(options.keys)) or min(options.limit or run.rows_out, run.rows_out)

    def write(self, run: FinishedRun, out: Location, options: ExportOptions) -> ExportResult:
        """Write the files into the folder `out`. Raises OutputError for an unknown key."""
        models = options.required_models()
        check_models(run, models)
        finite = FinitePeople(run)
        motions = known_people(_people_in_time(finite, options, self.count(run, options)), options)
        prepare_folder(out, options.overwrite)
        bodies = ExportedBodies(models)
        made, files, people, assumed = self.form(bodies), list[str](), 0, 0
        used, floors, gravity = set[str](), dict[str, dict[str, Any]](), dict[str, str]()
        for wanted, frames in motions:
            name = unused_name(wanted, used)
            files.append(name + self.endings[0])
            ground = None
            if len(frames) > 1:
                ground = bodies.ground(frames, known_rate(frames[0], options.frame_rate))
                floors[name] = ground.summary()
            coordinates = coordinates_of(frames[0])
            gravity[coordinates] = gravity_text(coordinates)
            content = made.content(name, frames, frame_rate(frames[0], options.frame_rate), ground)
            write_atomically(out / files[-1], lambda stream, data=content: stream.write(data))  # type: ignore[misc]
            people, assumed = people + len(frames), assumed + _assumes_rate(frames, options)
            options.step(len(frames))
        write_record(out, run, self.name, files, gravity=gravity, floors=floors)
        counted = f"{plural(people, 'person', 'people')} in {plural(len(files), 'file')}"
        notes = [f"{counted} in {out} ({self.endings[0]}, metres, y up)", *finite.notes()]
        if assumed:
            notes.append(assumed_rate_text(assumed))
        if not options.keys and options.limit is None and people + len(finite.left_out) < run.rows_out:
            text = (
                f"  of people in no sequence, the first {DEFAULT_LIMIT}; others with --limit N or --key KEY"
            )
            notes.append(text)
        notes += made.notes(files[0]) if files else ()
        return ExportResult(people, tuple(files), tuple(notes), len(finite.left_out))


def _people_in_time(
    finite: FinitePeople, options: ExportOptions, count: int
) -> Iterator[tuple[str, list[Person]]]:
    """Selected people one by one; else those of each sequence in time, and the first of the others. With names."""
    if options.keys or options.limit is not None:
        for person in selected_people(finite, options.keys, count):
            yield person.key, [person]
        return
    alone = 0
    for name, people in motions_of(finite):
        if people[0].meta["sequence"] is None:
            chosen = people[: DEFAULT_LIMIT - alone]
            alone += len(chosen)
            yield from ((person.key, [person]) for person in chosen)
        else:
            for _, frames in groupby(people, lambda person: str(person.meta["skel_gender"])):
                yield name, list(frames)


def _assumes_rate(people: Sequence[Person], options: ExportOptions) -> bool:
    rate = people[0].meta["frame_rate"] or options.frame_rate
    return len(people) > 1 and rate is None
