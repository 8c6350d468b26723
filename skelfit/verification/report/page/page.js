"use strict";
// Builds the page.
const VERDICTS = { good: ["good", "Whole, and within the gate"], below_gate: ["low", "Below the gate"], unfinished: ["low", "The run is not finished"], damaged: ["bad", "Damaged or incomplete"] };

function head(report) {
  const { integrity, accuracy, reprojection, anatomy } = report;
  const [kind, text] = VERDICTS[report.verdict], rows = rowsOf(report);
  const tile = (value, unit, name) => `<div class="tile"><b>${value}${unit ? `<small>${unit}</small>` : ""}</b><span>${name}</span></div>`;
  const tiles = [tile(count(integrity.people), "", rows), tile(count(integrity.faults), "", "faults")];
  if (accuracy) {
    tiles.push(tile(mm(accuracy.pve_mm.mean), "mm", "mean vertex error (PVE)"), tile(mm(accuracy.pve_mm.p95), "mm", `PVE, 95 % of ${rows} below`));
    const set = accuracy.joints?.smpl24;
    if (set) tiles.push(tile(mm(set.pa_mpjpe_mm.mean), "mm", "PA-MPJPE, SMPL's 24 joints"));
  }
  if (reprojection?.people) tiles.push(tile(percent(reprojection.skel.pck_05), "", `PCK@0.05; the labels: ${percent(reprojection.smpl.pck_05)}`));
  if (anatomy) {
    const { beyond_deg: beyond, any } = anatomy.violations;
    tiles.push(tile(percent(any[beyond.indexOf(10)]), "", `${rows} with an angle 10° beyond a limit`));
  }
  const of = integrity.identity_sha256 ? ` · configuration <span class="mono">${escaped(integrity.identity_sha256.slice(0, 12))}</span>` : "";
  return `<h1>SKEL labels of ${escaped(integrity.subset)}</h1><p class="lead">${several(integrity.shards, "shard")}, ${several(integrity.rows_in, "input row")}${of}</p>` +
    `<span class="verdict ${kind}">${text}</span><div class="tiles">${tiles.join("")}</div>`;
}

const CRITERIA = {
  pve_mm: ["mean error", (m) => `${fixed(1)(m.pve_mm)} mm`], max_vertex_mm: ["largest error", (m) => `${fixed(0)(m.max_vertex_mm)} mm`],
  violation_deg: ["beyond limits", (m) => degrees(m.violation_deg)], fit_adds_px_share: ["fit in the image", (m) => `${fixed(1)(m.skel_px)} px`],
  label_px_share: ["label in the image", (m) => `${fixed(1)(m.smpl_px)} px`], bone_depth_mm: ["bones outside", (m) => `${fixed(1)(m.bone_depth_mm)} mm`],
  sides_exchanged: ["sides exchanged", () => "left, right"],
  refined_moved_mm: ["moved from the label", (m) => `${fixed(0)(m.refinement.moved_mm)} mm`],
  refined_gain: ["refined", (m) => `${fixed(1)(m.refinement.before.px)} to ${fixed(1)(m.refinement.after.px)} px`],
};

function describe(person) {
  const m = person.metrics, by = person.worst_by.map((name) => CRITERIA[name] || [words(name), () => ""]);
  person.why = by[0][0];
  person.headline = by[0][1](m);
  person.facts = [
    ["shown for", by.map(([name]) => name).join(", ")],
    ["PVE", `${mm(m.pve_mm)} mm`], ["largest vertex error", `${mm(m.max_vertex_mm)} mm`], ["PA-MPJPE", `${mm(m.pa_mpjpe_mm)} mm`],
    ["furthest beyond a limit", m.violation_deg > 0 ? `${words(m.violation_dof)}, ${degrees(m.violation_deg)}` : "none"],
    ["keypoints: label, fit", `${fixed(1)(m.smpl_px)}, ${fixed(1)(m.skel_px)} px`],
    ["joint rotations of the label", degrees(m.extremity_deg)],
    ["shard", person.shard],
  ];
  if (known(m.bone_depth_mm)) person.facts.splice(-1, 0, ["bones outside", `${percent(m.bone_share)}, ${mm(m.bone_depth_mm)} mm`]);
  if (m.refinement) {
    const { status, reason, camera, before, after } = m.refinement;
    if (camera === "estimated") {
      const from = known(before.depth_m) ? `${fixed(2)(before.depth_m)} to ` : "";
      person.facts.unshift(["estimated camera", `focal length ${fixed(0)(after.focal_px)} px, depth ${from}${fixed(2)(after.depth_m)} m`]);
    }
    person.facts.unshift(["refinement", words(status) + (reason ? `: ${reason}` : "")]);
  }
  if (person.before) {
    const b = person.before, both = (name, write, unit) => `${write(b[name])}, ${write(m[name])}${unit}`;
    person.facts.splice(1, 0,
      ["keypoints of the fit: before, after", both("skel_px", fixed(1), " px")],
      ["beyond a limit: before, after", both("violation_deg", degrees, "")],
      ["PVE: before, after", both("pve_mm", mm, " mm")]);
  }
  if (m.sides_exchanged) person.facts.unshift(["left and right", "exchanged in the fit"]);
  if (m.keypoints_exchanged) person.facts.unshift(["left and right", "exchanged in the keypoints"]);
}

function paintBody(report, people, packed) {
  const values = report.parts.vertex_mean_mm, canvas = document.getElementById("body");
  const sorted = [...values].sort((a, b) => a - b), end = sorted[Math.floor(0.99 * sorted.length)];
  const positions = metres(packed.numbers(people.body), people.unit), colour = new Float32Array(3 * values.length);
  values.forEach((value, k) => colour.set(heat(value / end), 3 * k));
  document.getElementById("bodyscale").innerHTML = scaleLegend(end.toFixed(0), "mm");
  new Scene(canvas).show([{ positions, faces: packed.numbers(people.topologies.skin), colour }], positions);
}

async function start() {
  const read = (id) => document.getElementById(id).textContent;
  const report = JSON.parse(read("report")), people = JSON.parse(read("people"));
  const packed = await Packed.read(read("packed").trim());
  const sections = [
    report.against && againstSection(report),
    integritySection(report),
    report.accuracy && accuracySection(report),
    report.parts?.vertex_mean_mm.length && partsSection(report),
    people.people.length && peopleSection(report, people),
    report.reprojection?.people && reprojectionSection(report),
    report.anatomy && anatomySection(report),
    report.anatomy && anglesSection(report),
    people.motions.length && motionsSection(report, people, packed),
    report.keep && keepSection(report),
  ].filter(Boolean);
  document.title = `skelfit verify: ${report.integrity.subset}`;
  document.getElementById("top").innerHTML = head(report);
  document.getElementById("sections").innerHTML = sections.map((s) => `<a href="#${s.id}">${s.title}</a>`).join("");
  const main = document.getElementById("main");
  sections.forEach((s) => { const node = element("section", s.html); node.id = s.id; main.append(node); });
  if (report.parts?.vertex_mean_mm.length) paintBody(report, people, packed);
  if (people.people.length) {
    people.people.forEach(describe);
    new Gallery(document.getElementById("gallery"), people, packed);
  }
  document.body.dataset.ready = "yes";
}
start();
