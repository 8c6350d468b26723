"""How betas move a posed body: the twists of the skinning transforms.

A beta moves the joints at rest, and with them the bone vectors that the joint frames follow. The rotation n of a frame
(see `rest_joints`) changes with the bone's direction b by theta = b x db - (n . db) / (1 + c) b. If the frame of joint
j turns by theta, so do the axes of its DoFs, and its global rotation G_j turns by w_j = w_parent + (G_parent - G_j)
theta. The rest is the chain rule. A slide is proportional to a length of spine or thorax, so its change follows from
the positions of the joints.
"""

import warp as wp

from skelfit.bodies.dofs import NUM_JOINTS
from skelfit.bodies.kinematics import LUMBAR, SCAPULA_L, SCAPULA_R, THORAX
from skelfit.fitting.backends.body_tables import NUM_BETAS, BodyTables

from .joint_chain import scapula_side, spine_segment
from .joint_frames import JointFrames
from .lanes import A3, V, choose, exceeds, m, sync
from .rest_joints import bone_of

wp.set_module_options({"enable_backward": False, "max_unroll": 1})

K: int = NUM_BETAS


@wp.struct
class BetaTwists:
    """Derivatives with respect to K betas, for each slot; entry K r + k of 3 K is component r of beta k."""

    bones: A3  # (S, 24, 7) direction of the bone, n / (1 + c), and one over the length, 1/m
    spins: A3  # (S, 24, 3 K) rad per beta, of the joint frames
    lengths: A3  # (S, 5, K) m per beta: the three of the spine, width and height of the thorax
    slides: A3  # (S, 5, 3) slides of spine joints and scapulae, in the parent, per length that scales them
    velocity: A3  # (S, 24, 3 K) m per beta, of the joints
    # (S, 24, 6 K) omega and v, rad and m per beta: a joint's transform A changes by dA = [omega]x A + [0 | v]
    twist: A3


def make_beta_twists(slots: int, device: str) -> BetaTwists:
    """Scratch for so many groups at a time."""
    twists = BetaTwists()
    for name, rows, columns in (
        ("bones", NUM_JOINTS, 7), ("spins", NUM_JOINTS, 3 * K), ("lengths", 5, K), ("slides", 5, 3),
        ("velocity", NUM_JOINTS, 3 * K), ("twist", NUM_JOINTS, 6 * K),
    ):  # fmt: skip
        setattr(twists, name, wp.zeros((slots, rows, columns), dtype=V, device=device))
    return twists


@wp.func
def shape_speeds(s: int, t: int, body: BodyTables, joints: JointFrames, twists: BetaTwists):
    """Fill spins and lengths of a slot whose joints at rest are known."""
    for j in range(t, wp.static(NUM_JOINTS), wp.block_dim()):
        if body.bones[j, 0] >= 0:
            _write_bone(s, j, body, joints, twists)
    for i in range(t, wp.static(5 * K), wp.block_dim()):
        twists.lengths[s, i // wp.static(K), i % wp.static(K)] = _stretch(
            s, i // wp.static(K), i % wp.static(K), body, joints
        )
    sync()
    for i in range(t, wp.static(NUM_JOINTS * K), wp.block_dim()):
        _spin(s, i // wp.static(K), i % wp.static(K), body, twists)
    sync()


@wp.func
def _write_bone(s: int, j: int, body: BodyTables, joints: JointFrames, twists: BetaTwists):
    t0 = body.directions[j, 0]
    t1 = body.directions[j, 1]
    t2 = body.directions[j, 2]
    b0, b1, b2, over = bone_of(s, j, body, joints)
    share = wp.cw_div(V(1.0), V(1.0) + b0 * t0 + b1 * t1 + b2 * t2)
    twists.bones[s, j, 0] = b0
    twists.bones[s, j, 1] = b1
    twists.bones[s, j, 2] = b2
    twists.bones[s, j, 3] = m(share, b2 * t1 - b1 * t2)
    twists.bones[s, j, 4] = m(share, b0 * t2 - b2 * t0)
    twists.bones[s, j, 5] = m(share, b1 * t0 - b0 * t1)
    twists.bones[s, j, 6] = over


@wp.func
def _stretch(s: int, i: int, k: int, body: BodyTables, joints: JointFrames) -> V:
    """The derivative of length i of `BetaTwists.lengths` by beta k."""
    speed = V()
    if i < 3:
        j = wp.static(LUMBAR) + i
        sign = choose(exceeds(V(0.0), joints.offsets[s, j, 1]), V(-1.0), V(1.0))
        speed = sign * body.offset_speeds[j, 1, k]
    else:
        for r in range(3):
            x = joints.offsets[s, wp.static(THORAX), r]
            c = body.offset_speeds[wp.static(THORAX), r, k]
            if i == 3:
                x = joints.offsets[s, wp.static(SCAPULA_L), r] - joints.offsets[s, wp.static(SCAPULA_R), r]
                c = body.offset_speeds[wp.static(SCAPULA_L), r, k]
                c -= body.offset_speeds[wp.static(SCAPULA_R), r, k]
            speed += x * c
        speed = wp.cw_div(speed, joints.thorax[s, i - 3])
    return speed


@wp.func
def _spin(s: int, j: int, k: int, body: BodyTables, twists: BetaTwists):
    """The rotation of joint j's frame by beta k."""
    x = V()
    y = V()
    z = V()
    if body.bones[j, 0] >= 0:
        u = body.stretches[j, 0, k]
        v = body.stretches[j, 1, k]
        w = body.stretches[j, 2, k]
        b0 = twists.bones[s, j, 0]
        b1 = twists.bones[s, j, 1]
        b2 = twists.bones[s, j, 2]
        along = b0 * u + b1 * v + b2 * w
        over = twists.bones[s, j, 6]
        d0 = m(V(u) - m(b0, along), over)  # the change of the bone, across it
        d1 = m(V(v) - m(b1, along), over)
        d2 = m(V(w) - m(b2, along), over)
        back = m(twists.bones[s, j, 3], d0) + m(twists.bones[s, j, 4], d1) + m(twists.bones[s, j, 5], d2)
        x = m(b1, d2) - m(b2, d1) - m(back, b0)
        y = m(b2, d0) - m(b0, d2) - m(back, b1)
        z = m(b0, d1) - m(b1, d0) - m(back, b2)
    twists.spins[s, j, k] = x
    twists.spins[s, j, wp.static(K) + k] = y
    twists.spins[s, j, wp.static(2 * K) + k] = z


@wp.func
def shape_twists(s: int, t: int, body: BodyTables, joints: JointFrames, twists: BetaTwists):
    """Fill the twists of a posed slot after `shape_speeds`; the angles are held."""
    for i in range(t, 15, wp.block_dim()):
        _write_slide(s, i // 3, i % 3, body, joints, twists)
    sync()
    share = wp.min(wp.block_dim(), wp.static(K))  # threads that share a joint
    for depth in range(body.level.shape[0] - 1):
        for i in range(body.level[depth] * share + t, body.level[depth + 1] * share, wp.block_dim()):
            j = body.order[i // share]
            if depth == 0:
                _move_root(s, j, i % share, share, body, joints, twists)
            else:
                _move(s, j, i % share, share, body, joints, twists)
            _twist(s, j, i % share, share, body, joints, twists)
        sync()


@wp.func
def _write_slide(s: int, i: int, r: int, body: BodyTables, joints: JointFrames, twists: BetaTwists):
    """Component r of slide i: the joint's position in its parent, less its offset, over the length that scales it."""
    joint = wp.static(LUMBAR) + i
    if i == 3:
        joint = wp.static(SCAPULA_R)
    if i == 4:
        joint = wp.static(SCAPULA_L)
    up = body.parents[joint]
    x = -joints.offsets[s, joint, r]
    for c in range(3):
        x += m(joints.rot[s, up, 3 * c + r], joints.pos[s, joint, c] - joints.pos[s, up, c])
    length = joints.thorax[s, r % 2]  # the width scales sideways and forward, the height upward
    if i < 3:
        length = joints.spine[s, i]
    twists.slides[s, i, r] = wp.cw_div(x, length)


@wp.func
def _move_root(
    s: int, j: int, first: int, step: int, body: BodyTables, joints: JointFrames, twists: BetaTwists
):
    """The root turns about itself, with its frame; for the betas from first on, in steps."""
    for k in range(first, wp.static(K), step):
        for r in range(3):
            turn = twists.spins[s, j, wp.static(K) * r + k]
            for c in range(3):
                turn -= m(joints.rot[s, j, 3 * r + c], twists.spins[s, j, wp.static(K) * c + k])
            twists.twist[s, j, wp.static(K) * r + k] = turn
            twists.velocity[s, j, wp.static(K) * r + k] = V(body.speeds[j, r, k])


@wp.func
def _move(s: int, j: int, first: int, step: int, body: BodyTables, joints: JointFrames, twists: BetaTwists):
    """The motion of a joint from that of its parent, row by row; for the betas from first on, in steps."""
    up = body.parents[j]
    for r in range(3):
        a = (r + 1) % 3
        b = (r + 2) % 3
        g0 = joints.rot[s, up, 3 * r]
        g1 = joints.rot[s, up, 3 * r + 1]
        g2 = joints.rot[s, up, 3 * r + 2]
        d0 = g0 - joints.rot[s, j, 3 * r]
        d1 = g1 - joints.rot[s, j, 3 * r + 1]
        d2 = g2 - joints.rot[s, j, 3 * r + 2]
        offset_a = joints.pos[s, j, a] - joints.pos[s, up, a]
        offset_b = joints.pos[s, j, b] - joints.pos[s, up, b]
        for k in range(first, wp.static(K), step):
            turn = twists.twist[s, up, wp.static(K) * r + k] + m(d0, twists.spins[s, j, k])
            turn += m(d1, twists.spins[s, j, wp.static(K) + k]) + m(
                d2, twists.spins[s, j, wp.static(2 * K) + k]
            )
            velocity = twists.velocity[s, up, wp.static(K) * r + k] + m(
                offset_b, twists.twist[s, up, wp.static(K) * a + k]
            )
            velocity -= m(offset_a, twists.twist[s, up, wp.static(K) * b + k])
            velocity += g0 * body.offset_speeds[j, 0, k] + g1 * body.offset_speeds[j, 1, k]
            twists.twist[s, j, wp.static(K) * r + k] = turn
            twists.velocity[s, j, wp.static(K) * r + k] = velocity + g2 * body.offset_speeds[j, 2, k]
    spine = spine_segment(j)
    side = scapula_side(j)
    if spine >= 0:
        _move_slide(s, j, up, spine, spine, spine, first, step, joints, twists)
    if side >= 0:
        _move_slide(s, j, up, 3 + side, 3, 4, first, step, joints, twists)


@wp.func
def _move_slide(
    s: int, j: int, up: int, slide: int, wide: int, high: int, first: int, step: int, joints: JointFrames,
    twists: BetaTwists
):  # fmt: skip
    """Add the change of a joint's slide: sideways and forward with one length, upward with another."""
    for r in range(3):
        across_x = m(joints.rot[s, up, 3 * r], twists.slides[s, slide, 0])
        across_z = m(joints.rot[s, up, 3 * r + 2], twists.slides[s, slide, 2])
        across = across_x + across_z
        upward = m(joints.rot[s, up, 3 * r + 1], twists.slides[s, slide, 1])
        for k in range(first, wp.static(K), step):
            velocity = twists.velocity[s, j, wp.static(K) * r + k] + m(across, twists.lengths[s, wide, k])
            twists.velocity[s, j, wp.static(K) * r + k] = velocity + m(upward, twists.lengths[s, high, k])


@wp.func
def _twist(s: int, j: int, first: int, step: int, body: BodyTables, joints: JointFrames, twists: BetaTwists):
    """The velocity of the origin under a joint's transform, from the motion of the joint."""
    for r in range(3):
        a = (r + 1) % 3
        b = (r + 2) % 3
        g0 = joints.rot[s, j, 3 * r]
        g1 = joints.rot[s, j, 3 * r + 1]
        g2 = joints.rot[s, j, 3 * r + 2]
        at_a = joints.pos[s, j, a]
        at_b = joints.pos[s, j, b]
        for k in range(first, wp.static(K), step):
            x = twists.velocity[s, j, wp.static(K) * r + k] + m(
                at_a, twists.twist[s, j, wp.static(K) * b + k]
            )
            x -= m(at_b, twists.twist[s, j, wp.static(K) * a + k])
            x -= g0 * body.speeds[j, 0, k] + g1 * body.speeds[j, 1, k] + g2 * body.speeds[j, 2, k]
            twists.twist[s, j, wp.static(3 * K) + wp.static(K) * r + k] = x
