"use strict";
// Angles over time of the sequences with the largest jumps.
const MOTION_SIZE = { width: 360, height: 132 };

// A packed array of a motion in degrees, one array per column; negative turns are not known.
function motionColumns(packed, location, unit) {
  const values = new Int16Array(packed.numbers(location).buffer);
  return Array.from({ length: location.columns }, (_, c) => Array.from({ length: location.rows }, (_, r) => values[r * location.columns + c] * unit));
}

const sideKind = (name) => (name.endsWith("_r") ? "two" : name.endsWith("_l") ? "one" : "three");

function motionHtml(motion, first, dofs, units, bounds, packed) {
  const x = Array.from(packed.numbers(motion.frames), (v) => v + motion.first), { jump } = motion;
  const columns = motionColumns(packed, motion.angles, units.angles);
  const [fit, label] = motionColumns(packed, motion.turns, units.turns).map((values) => values.map((v) => (v < 0 ? null : v)));
  const contacts = motion.contacts ? motionColumns(packed, motion.contacts, 1).map((on, k) => ({ on, kind: ["two", "one"][k] })) : [];
  const panel = (title, more) => `<div><h3>${escaped(title)}</h3>${curves({ x, mark: jump.frame, contacts, ...MOTION_SIZE, ...more })}</div>`;
  const angles = anglePanels(Object.fromEntries(dofs.map((name, k) => [name, { values: columns[k], limits: bounds[name] }]))).map(([title, { m, r, l }]) => {
    const shown = [[m, "three"], [r, "two"], [l, "one"]].filter(([a]) => a), limits = shown.map(([a]) => a.limits).filter(Boolean);
    return panel(title, { series: shown.map(([a, kind]) => ({ values: a.values, kind })), least: 4,
      limits: limits.length ? [Math.min(...limits.map((b) => b[0])), Math.max(...limits.map((b) => b[1]))] : [] });
  });
  const turns = panel(`${words(jump.joint)}: turn from the frame before`, { series: [{ values: label, kind: "grey" }, { values: fit, kind: sideKind(jump.joint) }] });
  const rate = motion.frame_rate ? `, ${motion.frame_rate} Hz` : "";
  const beside = known(jump.label_turn_deg) ? `, ${degrees(jump.label_turn_deg)} in the label` : "";
  return `<details class="motion"${first ? " open" : ""}><summary>${escaped(jump.sequence)}</summary><p class="note">${several(x.length, "frame")} from ${count(x[0])} on${rate}. At frame ${count(jump.frame)} (${escaped(jump.key)}) ` +
    `${escaped(words(jump.joint))} turns by ${degrees(jump.turn_deg)}${beside}. ${escaped(motion.ground)}</p><div class="angles times">${turns}${angles.join("")}</div></details>`;
}

function motionsSection({ anatomy }, people, packed) {
  const bounds = Object.fromEntries(entries(anatomy.angles.dofs).map(([name, dof]) => [name, dof.limits_deg]));
  const html = legend([["two", "right"], ["one", "left"], ["three", "middle of the body"], ["grey", "the label's joint"], ["beyond", "beyond the limits"]]) +
    people.motions.map((motion, k) => motionHtml(motion, k === 0, people.motion_dofs, people.motion_units_deg, bounds, packed)).join("");
  return section("motions", "Angles over time", "The sequences in which a joint jumps furthest beyond its label: the stored angles about that frame (dashed), frame by frame. Lines break where frames were not published. Bars at the bottom: the right and the left foot on the floor. After a whole turn, a ball joint keeps the Euler angles that continue those of the frame before; they may lie in the shaded area although the joint is within its limits.", html);
}
