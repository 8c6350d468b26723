"""The constants of the ground's measures. All are per second or in metres: none depends on the frame rate."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class GroundSettings:
    """When a sole rests on the floor.

    A contact reaches as far as both loose limits hold, and both strict ones must hold somewhere in it. HuMoR (Rempe et
    al., ICCV 2021, `process_amass_data.py`) labels AMASS with 0.005 m per frame at 30 Hz, and 0.04 m for the joint of
    the toes, which is about 0.02 m above the sole. For gait events in marker data, Bruening and Ridge (Gait & Posture
    39, 2014) use 0.5 m/s in the method of Ghoussayni et al. (Gait & Posture 20, 2004).
    """

    strict_speed: float = 0.15  # m/s: HuMoR's; soles that are slower also tell where the floor is
    loose_speed: float = 0.5  # m/s: Ghoussayni's method after Bruening and Ridge
    strict_height: float = 0.015  # m
    loose_height: float = 0.025  # m: HuMoR's above the sole, and 5 mm as fits differ from their labels
    least_contact: float = 0.05  # s; shorter ones are none. A sprinter's foot is on the ground for 0.09 s
    least_flight: float = (
        0.08  # s; a foot is not in the air for less: walkers swing for 0.3 s, runners longer
    )
    longest_gap: float = 0.1  # s without frames; beyond it nothing is known of what happened between
    # s, deviation of a Gaussian: positions and speeds come from lines through the frames about each. Passes half of a
    # movement of 6 Hz, where gait analysis usually cuts (Winter); but at least so many frames.
    smoothing: float = 0.03
    least_smoothing: float = 0.6  # frames
    shortest: float = 0.25  # s; less tells nothing about a floor
    level: float = 0.02  # m, half the thickness of a level at which soles rest
    level_share: float = 0.05  # of the samples at rest, that a level has at least
    climb: float = 0.05  # m: of levels nearer than this, the most frequent one
    least_rest: float = (
        0.1  # of the frames, in which a sole rests at the floor; less is a treadmill, or no floor
    )
    most_raised: float = (
        0.1  # of the frames, in which soles rest, but all above the floor; more is no level floor
    )
    most_below: float = 0.05  # of the frames, in which another joint is below the floor; more cannot be
    slope_reach: float = 1.0  # m, over which soles must rest to tell a slope


GROUND_SETTINGS = GroundSettings()
