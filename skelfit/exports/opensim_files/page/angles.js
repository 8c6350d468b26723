"use strict";
// The angles of one motion over time, and their ranges.
function timeCharts(angles, { times, step, contacts }) {
  const feet = contacts ? [{ on: contacts.r, kind: "two" }, { on: contacts.l, kind: "one" }] : [];
  return `<div class="angles times">${anglePanels(angles).map(([title, sides]) => {
    const shown = [[sides.m, "three"], [sides.r, "two"], [sides.l, "one"]].filter(([a]) => a), limits = shown.map(([a]) => a.limits).filter(Boolean);
    const drawn = curves({ x: times, step, contacts: feet, width: 360, height: 150, label: "time in s", least: 4, series: shown.map(([a, kind]) => ({ values: a.values, kind })),
      limits: limits.length ? [Math.min(...limits.map((b) => b[0])), Math.max(...limits.map((b) => b[1]))] : [] });
    return `<div><h3>${escaped(title)}</h3>${drawn}</div>`;
  }).join("")}</div>`;
}

function rangeTable(angles) {
  const columns = [["lowest", "low"], ["highest", "high"], ["range", "range"], ["mean", "mean"]].map(([title, name]) => ({ title, of: (row) => degrees(row[name]) }));
  return table([nameColumn("angle"), ...columns], entries(angles).map(([name, angle]) => ({ name, ...angle })));
}

function startAngles() {
  const motion = JSON.parse(document.getElementById("report").textContent);
  const sides = [["two", "right"], ["one", "left"], ["three", "middle of the body"]];
  const sections = [
    section("clinical", "Clinical angles", "After the ISB's recommendations. Positive is what the name says: flexion of hip, knee, elbow and trunk bends forward (the knee: backward), the trunk turns to the left.", legend(sides) + timeCharts(motion.clinical, motion)),
    section("ranges", "Ranges of the clinical angles", "Over all frames.", rangeTable(motion.clinical)),
    section("skel", "SKEL's angles", "The 46 coordinates of the model, as in the .mot. Values in the shaded area are beyond the limits of the model's coordinates.", legend([...sides, ["beyond", "beyond the limits"]]) + timeCharts(motion.skel, motion)),
  ];
  const left = motion.every > 1 ? `, of which every ${motion.every}th is drawn` : "";
  const floor = motion.floor ? ` Floor: ${escaped(motion.floor)}.${motion.contacts ? " Bars at the bottom of each chart: the right and the left foot on it." : ""}` : "";
  document.getElementById("top").innerHTML = `<h1>${escaped(motion.name)}</h1><p class="lead">${several(motion.frames, "frame")}${left}, ${fixed(2)(motion.seconds)} s at ${Number(motion.rate.toFixed(2))} Hz. Ground: ${escaped(motion.ground)}. Gravity: ${escaped(motion.gravity)}.${floor}</p>`;
  document.getElementById("sections").innerHTML = sections.map((s) => `<a href="#${s.id}">${s.title}</a>`).join("");
  sections.forEach((s) => { const node = element("section", s.html); node.id = s.id; document.getElementById("main").append(node); });
}

startAngles();
document.body.dataset.ready = "yes";
