"""The ground under a sequence: feet that are planted exactly, by construction, and what no floor can be found under."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from skelfit.bodies.model_set import ModelSet
from skelfit.bodies.sole_vertices import SOLE_PARTS, sole_vertices
from skelfit.bodies.world_axes import Y_UP_FROM_Z_UP
from skelfit.verification.measures.foot_contacts import find_contacts, foot_events
from skelfit.verification.measures.ground_settings import GROUND_SETTINGS
from skelfit.verification.measures.sequence_ground import (
    MEASURED,
    SEVERAL_LEVELS,
    Array,
    SequenceGround,
    SoleTracks,
    measure_ground,
)
from skelfit.verification.measures.smoothed_points import smoothed_points
from tools.studies.planted_feet import (
    LANDING,
    TAKE_OFF,
    PlantedBody,
    PlantedMotion,
    planted_jump,
    planted_walk,
)

HEEL_R = 6787  # of SMPL's topology, as in the markers of the OpenSim export
BIG_TOE_R, SMALL_TOE_R = 6617, 6624


@pytest.fixture(scope="module")
def body(models: ModelSet) -> PlantedBody:
    return PlantedBody(models)


def moved(tracks: SoleTracks, offset: Array) -> SoleTracks:
    """All points of each frame, moved by offsets (T,3) m."""
    return replace(tracks, soles=tracks.soles + offset[:, None], joints=tracks.joints + offset[:, None])


def turned(tracks: SoleTracks, rotation: Array) -> SoleTracks:
    return replace(tracks, soles=tracks.soles @ rotation.T, joints=tracks.joints @ rotation.T)


def noisy(tracks: SoleTracks, deviation: float) -> SoleTracks:
    """White noise of the body's place, m."""
    return moved(tracks, deviation * np.random.default_rng(5).standard_normal((len(tracks.frames), 3)))


def f1(found: np.ndarray, true: np.ndarray) -> float:
    return float(2 * (found & true).sum() / (found.sum() + true.sum()))


def feet_of(contacts: np.ndarray) -> np.ndarray:
    return np.stack([contacts[:, :2].any(1), contacts[:, 2:].any(1)], 1)


@pytest.mark.parametrize("gender", ["male", "female"])
def test_soles_are_under_heel_and_forefoot(models: ModelSet, gender: str) -> None:
    asset = models.skel_of(gender)
    rest = asset.v_template
    soles = sole_vertices(asset)
    assert len(set(soles.vertices.tolist())) == len(soles.vertices) == soles.parts[-1].stop
    places = [rest[soles.vertices[part]] for part in soles.parts]
    lowest = min(place[:, 1].min() for place in places)
    assert all(len(place) >= 10 and np.ptp(place[:, 1]) <= 0.0201 for place in places)
    assert all(place[:, 1].min() < lowest + 0.006 for place in places)
    # The well-known vertices of SMPL's topology say where heel and toes are.
    heel, forefoot = places[SOLE_PARTS.index("heel_r")], places[SOLE_PARTS.index("forefoot_r")]
    ends = rest[[BIG_TOE_R, SMALL_TOE_R]].mean(0)
    assert np.linalg.norm((heel.mean(0) - rest[HEEL_R])[[0, 2]]) < 0.05
    assert np.linalg.norm((forefoot.mean(0) - ends)[[0, 2]]) < 0.06
    assert (heel[:, 0] < 0).all() and (places[2][:, 0] > 0).all(), "right is at negative x"
    assert forefoot[:, 2].min() > heel[:, 2].max() + 0.05


def test_a_line_has_its_own_speed_at_any_rate_and_across_gaps() -> None:
    for rate in (10.0, 30.0, 240.0):
        frames = np.delete(np.arange(40), [7, 8, 20])
        velocity = np.array([1.0, -2.0, 0.5])
        line = 3000 + frames[:, None, None] / rate * velocity
        places, speeds = smoothed_points(line, frames, rate, 0.03, 0.6)
        np.testing.assert_allclose(places, line, atol=1e-8)
        np.testing.assert_allclose(speeds, np.broadcast_to(velocity, speeds.shape), atol=1e-7)
    _, alone = smoothed_points(np.zeros((2, 1, 3)), np.array([0, 1000]), 30.0, 0.03, 0.6)
    assert np.isnan(alone).all()


@pytest.mark.parametrize("rate", [30.0, 60.0, 120.0])
@pytest.mark.parametrize(
    ("up", "noise", "least", "floor_mm"),
    [("y", 0.0, 0.98, 0.3), ("z", 0.0, 0.98, 0.3), ("y", 0.005, 0.98, 1.5), ("y", 0.01, 0.95, 4.0)],
)
def test_contacts_of_a_walk(
    body: PlantedBody, up: Literal["y", "z"], rate: float, noise: float, least: float, floor_mm: float
) -> None:
    walk = planted_walk(body, 4.0, rate, up)
    ground = measure_ground(noisy(body.tracks(walk.motion), noise), rate, f"world_{up}_up")
    assert ground.status == MEASURED and ground.contacts is not None and ground.floor is not None
    assert abs(1000 * ground.floor.height) < floor_mm
    feet = ground.feet
    assert feet is not None and f1(feet, feet_of(walk.contacts)) > least
    assert f1(ground.contacts[:, 1::2], walk.contacts[:, 1::2]) > 0.92
    assert f1(ground.contacts[:, ::2], walk.contacts[:, ::2]) > 0.82
    if noise:
        return
    for side, letter in (("right", "r"), ("left", "l")):
        for kind, true in (("foot_strike", walk.strikes[letter]), ("foot_off", walk.offs[letter])):
            events = [event for event in ground.events if (event.side, event.kind) == (side, kind)]
            times = np.array([event.time for event in events])
            assert len(times) == len(true) and abs(times - true).max() < 0.02 + 1 / rate
            assert {event.part for event in events} == {"heel" if kind == "foot_strike" else "forefoot"}
    numbers = ground.summary()
    # Of true contact: 62 % of a cycle each, so 24 % on both feet.
    assert numbers["flight_share"] == 0 and numbers["double_support_share"] == pytest.approx(0.24, abs=0.04)
    assert numbers["slip_mm_s"] < 40 and numbers["penetration_mm"] < 0.5


def test_nothing_depends_on_where_the_world_begins(body: PlantedBody) -> None:
    tracks = body.tracks(planted_walk(body, 3.0, 60.0).motion)
    one = measure_ground(tracks, 60.0, "world_y_up")
    far = measure_ground(moved(tracks, np.array([[900.0, -1.5, 70.0]])), 60.0, "world_y_up")
    turn = measure_ground(turned(tracks, Y_UP_FROM_Z_UP.T), 60.0, "world_z_up")
    assert one.floor and far.floor and far.floor.height == pytest.approx(one.floor.height - 1.5, abs=1e-6)
    for other in (far, turn):
        assert one.contacts is not None and other.contacts is not None
        assert np.array_equal(one.contacts, other.contacts) and one.events == other.events


@pytest.mark.parametrize("rate", [30.0, 60.0, 120.0])
def test_a_jump_has_a_flight(body: PlantedBody, rate: float) -> None:
    jump = planted_jump(body, rate)
    ground = measure_ground(body.tracks(jump.motion), rate, "world_y_up")
    assert ground.status == MEASURED and ground.contacts is not None
    time = ground.frames / rate
    flying = (time > TAKE_OFF + 0.03) & (time < LANDING - 0.03)
    assert flying.sum() >= 10 and not ground.contacts[flying].any()
    assert ground.contacts[(time < TAKE_OFF - 0.03) | (time > LANDING + 0.05)].all()
    assert {(event.kind, event.side) for event in ground.events} == {
        (kind, side) for kind in ("foot_off", "foot_strike") for side in ("left", "right")
    }
    for event in ground.events:
        true = TAKE_OFF if event.kind == "foot_off" else LANDING
        assert abs(event.time - true) < 0.02 + 1 / rate and event.part == "both"


def walk_then(tracks: SoleTracks, change: Callable[[Array], Array]) -> SoleTracks:
    """The sequence, then its last frame again for as long, with all points moved by change(s since then) (T,3)."""
    since = np.arange(1, len(tracks.frames) + 1) / 60.0
    still = moved(replace(tracks, soles=tracks.soles[-1:], joints=tracks.joints[-1:]), change(since))
    return SoleTracks(
        np.arange(2 * len(tracks.frames)), np.concatenate([tracks.soles, still.soles]), tracks.parts,
        np.concatenate([tracks.joints, still.joints]),
    )  # fmt: skip


def lifted(height: float) -> Callable[[Array], Array]:
    return lambda since: np.stack([0 * since, height * np.clip(since / 0.5, 0, 1), 0 * since], 1)


def test_feet_that_hang_are_not_on_the_floor(body: PlantedBody) -> None:
    """Two seconds of walking, then feet that hang still above the floor, as on a high seat."""
    walk = body.tracks(planted_walk(body, 2.0, 60.0).motion)
    ground = measure_ground(walk_then(walk, lifted(0.15)), 60.0, "world_y_up")
    assert ground.status == SEVERAL_LEVELS and ground.contacts is not None and ground.floor is not None
    assert abs(ground.floor.height) < 0.001
    assert not ground.contacts[160:].any() and ground.contacts[:100].any(1).all()
    assert ground.raised_share == pytest.approx(0.4, abs=0.1)


def test_who_sits_on_the_floor_with_raised_feet_has_no_floor_under_them(body: PlantedBody) -> None:
    standing = body.tracks(planted_jump(body, 60.0).motion)
    rows = slice(0, 10)
    sitting = replace(standing, joints=standing.joints - [0.0, 0.85, 0.0])
    still = SoleTracks(
        np.arange(60), np.repeat(sitting.soles[rows][:1], 60, 0), standing.parts,
        np.repeat(sitting.joints[rows][:1], 60, 0),
    )  # fmt: skip
    ground = measure_ground(still, 60.0, "world_y_up")
    assert ground.status == "body_below"
    assert ground.contacts is None and ground.floor is None and ground.events == ()
    assert ground.summary()["floor_mm"] is None


def test_what_is_no_level_floor_is_said(body: PlantedBody) -> None:
    walk = planted_walk(body, 4.0, 60.0)
    tracks = body.tracks(walk.motion)
    time = tracks.frames / 60.0

    def ground_of(change: SoleTracks) -> SequenceGround:
        return measure_ground(change, 60.0, "world_y_up")

    tilted = ground_of(turned(tracks, Rotation.from_euler("x", 4, degrees=True).as_matrix()))
    assert tilted.status == SEVERAL_LEVELS and tilted.floor is not None
    assert tilted.floor.slope_deg == pytest.approx(4, abs=0.3)
    level = ground_of(tracks).floor
    assert level is not None and level.slope_deg is not None and level.slope_deg < 0.3
    treadmill = ground_of(moved(tracks, np.stack([0 * time, 0 * time, -1.3 / 1.1 * time], 1)))
    assert treadmill.status == "no_rest" and treadmill.contacts is None
    falling = ground_of(moved(tracks, np.stack([0 * time, -1.0 * time, 0 * time], 1)))
    assert falling.status == "no_rest"


@pytest.mark.parametrize("coordinates", ["camera", "camera_axes", "crop_camera", "unknown"])
def test_without_gravity_nothing_is_guessed(body: PlantedBody, coordinates: str) -> None:
    ground = measure_ground(body.tracks(planted_walk(body, 1.0, 30.0).motion), 30.0, coordinates)
    assert ground.status == "gravity_unknown" and ground.feet is None and ground.heights is None


def test_short_sequences_and_single_frames(body: PlantedBody) -> None:
    tracks = body.tracks(planted_walk(body, 1.0, 30.0).motion)

    def rows(chosen: list[int], frames: list[int]) -> SoleTracks:
        numbers = np.array(frames, np.int64)
        return replace(tracks, frames=numbers, soles=tracks.soles[chosen], joints=tracks.joints[chosen])

    assert measure_ground(rows([0], [0]), 30.0, "world_y_up").status == "too_short"
    assert measure_ground(rows([], []), 30.0, "world_y_up").status == "too_short"
    # Frames far apart tell no speed.
    apart = measure_ground(rows(list(range(20)), [10**7 * k for k in range(20)]), 30.0, "world_y_up")
    assert apart.status == "no_rest"


def test_events_at_gaps_and_ends_are_not_invented(body: PlantedBody) -> None:
    walk: PlantedMotion = planted_walk(body, 4.0, 60.0)
    tracks = body.tracks(walk.motion)
    whole = measure_ground(tracks, 60.0, "world_y_up")
    kept = np.flatnonzero((tracks.frames < 100) | (tracks.frames >= 130))
    cut = SoleTracks(tracks.frames[kept], tracks.soles[kept], tracks.parts, tracks.joints[kept])
    ground = measure_ground(cut, 60.0, "world_y_up")
    outside = [event for event in whole.events if not 97 <= event.frame < 134]
    assert [e for e in ground.events if not 97 <= e.frame < 134] == outside
    assert len(ground.events) < len(whole.events)
    assert not [event for event in ground.events if event.frame in (0, 130)]


def test_short_contacts_and_short_flights_are_none() -> None:
    rate, frames = 100.0, np.arange(100)
    heights = np.full((100, 4), 0.2)
    heights[10:50, 0] = 0.0
    heights[30:35, 0] = 0.2  # 50 ms off
    heights[70:74, 0] = 0.0  # 40 ms on
    heights[97:, 1] = 0.0  # goes on after the end
    contacts = find_contacts(heights, np.zeros((100, 4)), frames, rate, GROUND_SETTINGS)
    assert np.flatnonzero(contacts[:, 0]).tolist() == list(range(10, 50))
    assert np.flatnonzero(contacts[:, 1]).tolist() == [97, 98, 99] and not contacts[:, 2:].any()
    events = foot_events(contacts, frames, rate, GROUND_SETTINGS)
    assert [(e.frame, e.kind, e.part) for e in events] == [
        (10, "foot_strike", "heel"), (50, "foot_off", "heel"), (97, "foot_strike", "forefoot"),
    ]  # fmt: skip
    # Both loose limits hold, and no strict one anywhere: no contact.
    loose = np.full((100, 4), 0.020)
    assert not find_contacts(loose, np.zeros((100, 4)), frames, rate, GROUND_SETTINGS).any()
    loose[50] = 0.01
    assert find_contacts(loose, np.zeros((100, 4)), frames, rate, GROUND_SETTINGS).all()
    assert not find_contacts(loose, np.full((100, 4), 0.6), frames, rate, GROUND_SETTINGS).any()
