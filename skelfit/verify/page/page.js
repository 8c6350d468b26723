"use strict";
// Puts the page together.
const VERDICTS = { good: ["good", "Whole, and within the gate"], below_gate: ["low", "Below the gate"], damaged: ["bad", "Damaged or incomplete"] };

function head(report) {
  const { integrity, accuracy, reprojection, anatomy } = report;
  const [kind, text] = VERDICTS[report.verdict];
  const tile = (value, unit, name) => `<div class="tile"><b>${value}${unit ? `<small>${unit}</small>` : ""}</b><span>${name}</span></div>`;
  const tiles = [tile(count(integrity.people), "", "people"), tile(count((integrity.damage || []).length), "", "faults")];
  if (accuracy) {
    tiles.push(tile(mm(accuracy.pve_mm.mean), "mm", "mean vertex error (PVE)"), tile(mm(accuracy.pve_mm.p95), "mm", "PVE, 95 % of people below"));
    const set = accuracy.joints?.smpl24;
    if (set) tiles.push(tile(mm(set.pa_mpjpe_mm.mean), "mm", "PA-MPJPE, SMPL's 24 joints"));
  }
  if (reprojection?.people) tiles.push(tile(percent(reprojection.skel.pck["0.05"]), "", `PCK@0.05; the labels: ${percent(reprojection.smpl.pck["0.05"])}`));
  if (anatomy?.violations?.any) tiles.push(tile(percent(anatomy.violations.any["10"]), "", "people with an angle 10° beyond a limit"));
  const of = integrity.identity_sha256 ? ` · configuration <span class="mono">${escaped(integrity.identity_sha256.slice(0, 12))}</span>` : "";
  return `<h1>SKEL labels of ${escaped(integrity.subset)}</h1><p class="lead">${count(integrity.shards)} shards, ${count(integrity.rows_in)} input rows${of}</p>` +
    `<span class="verdict ${kind}">${text}</span><div class="tiles">${tiles.join("")}</div>`;
}

function facts(person) {
  return [
    ["shard", person.shard], ["PVE", `${mm(person.pve_mm)} mm`], ["largest vertex error", `${mm(person.max_vertex_mm)} mm`],
  ];
}

function paintBody(report, people, packed) {
  const values = report.parts.vertex_mm, canvas = document.getElementById("body");
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
  const made = [
    integritySection(report),
    report.accuracy && accuracySection(report),
    report.parts && partsSection(report),
    people.people.length && peopleSection(report, people),
    report.reprojection?.people && reprojectionSection(report),
    report.anatomy && anatomySection(report),
    report.anatomy?.angles && anglesSection(report),
    report.keep && keepSection(report),
  ].filter(Boolean);
  document.title = `skelfit verify: ${report.integrity.subset}`;
  document.getElementById("top").innerHTML = head(report);
  document.getElementById("sections").innerHTML = made.map((s) => `<a href="#${s.id}">${s.title}</a>`).join("");
  const main = document.getElementById("main");
  made.forEach((s) => { const node = element("section", s.html); node.id = s.id; main.append(node); });
  if (report.parts?.vertex_mm) paintBody(report, people, packed);
  if (people.people.length) {
    const measured = Object.fromEntries(report.worst.map((p) => [p.key, p]));
    for (const person of people.people) {
      person.facts = facts(measured[person.key]);
      person.headline = `${fixed(1)(measured[person.key].max_vertex_mm)} mm`;
    }
    new Gallery(document.getElementById("gallery"), people, packed);
  }
  document.body.dataset.ready = "yes";
}
start();
