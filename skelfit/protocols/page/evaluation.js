"use strict";
// The page of an evaluation, made of the parts of verify's page.
const ERRORS = { mpjpe_mm: "MPJPE", pa_mpjpe_mm: "PA-MPJPE", pve_mm: "PVE" };
const KEYPOINTS = ("nose,neck,right shoulder,right elbow,right wrist,left shoulder,left elbow,left wrist,middle of hips,right hip,right knee,right ankle,left hip,left knee,left ankle," +
  "right eye,left eye,right ear,left ear,left big toe,left small toe,left heel,right big toe,right small toe,right heel," +
  "right ankle (LSP),right knee (LSP),right hip (LSP),left hip (LSP),left knee (LSP),left ankle (LSP),right wrist (LSP),right elbow (LSP),right shoulder (LSP),left shoulder (LSP),left elbow (LSP),left wrist (LSP)," +
  "neck (LSP),top of head (LSP),pelvis (MPII),thorax (MPII),spine (H36M),jaw (H36M),head (H36M)").split(",");
const last = (report) => report.stages.at(-1);

function evaluationHead(report) {
  const { protocol, rows } = report, final = last(report);
  const tile = (value, unit, name) => `<div class="tile"><b>${value}${unit ? `<small>${unit}</small>` : ""}</b><span>${escaped(name)}</span></div>`;
  const tiles = [tile(count(final.people), "", `people, of ${count(rows.total)} rows`)];
  entries(final.errors).forEach(([name, h]) => tiles.push(tile(mm(h.mean), "mm", `${ERRORS[name]}, ${protocol.name}`)));
  final.pck.forEach((f) => tiles.push(tile(percent(f.mean), "", `PCK@${f.at}, ${protocol.name}`)));
  return `<h1>${escaped(protocol.name)}</h1><p class="lead">${escaped(report.predictions.path)} against ${escaped(report.labels.path)}</p><div class="tiles">${tiles.join("")}</div>`;
}

function rowsSection({ rows, protocol, predictions }) {
  const statuses = entries(rows.statuses).map(([name, value]) => ({ name: words(name), value, text: count(value), kind: name === "ok" ? "one" : "two" }));
  const reasons = entries(rows.reasons).flatMap(([status, of]) => entries(of).map(([reason, value]) => ({ name: status, reason, value })));
  let html = `<div class="columns">${block("What became of the rows", bars(statuses, rows.total))}`;
  if (reasons.length) html += block("Why rows have no figures", table([nameColumn("status"), { title: "reason", of: (r) => r.reason, number: false }, { title: "rows", of: (r) => count(r.value) }], reasons));
  html += "</div>";
  if (known(predictions.unused) && predictions.unused) html += `<p class="note">${several(predictions.unused, "prediction")} belong to no row.</p>`;
  return section("rows", "Rows", `${escaped(protocol.source)}${protocol.remark ? `; ${escaped(protocol.remark)}` : ""}.`, html);
}

function figuresSection({ protocol, stages, fit }) {
  const columns = [nameColumn("estimate"), ...protocol.errors.map((e) => ({ title: `${ERRORS[e]}, mm`, of: (r) => mm(r.errors[e].mean) })),
    ...protocol.pck_at.map((at, k) => ({ title: `PCK@${at}`, of: (r) => percent(r.pck[k].mean) }))];
  let html = table(columns, stages) + `<div class="columns">`;
  const colours = stages.length === 2 ? ["three", "two"] : stages.map(() => "one");
  const shown = stages.length === 2 ? stages : stages.slice(-1);
  for (const error of protocol.errors) {
    const h = last({ stages }).errors[error], drawn = shown.map((s, k) => series(s.errors[error], stages.length === 2 ? colours[k] : "one"));
    const marks = [{ at: h.p50, text: `median ${mm(h.p50)}` }, { at: h.p95, text: `95 % ${mm(h.p95)}`, line: 1 }];
    html += block(`${ERRORS[error]} of each person`, histogram({ series: drawn, marks, label: "mm" }));
  }
  html += "</div>";
  if (shown.length > 1 && protocol.errors.length) html += legend(shown.map((s, k) => [colours[k], s.name]));
  if (fit) html += `<p class="note">SKEL was fitted to ${several(fit.people, "person").replace("persons", "people")} in ${fit.seconds.toFixed(2)} s on ${escaped(fit.device)}.</p>`;
  return section("figures", "Figures", `By the protocol ${escaped(protocol.name)}; means over people.`, html);
}

function keypointsSection(report) {
  const figures = last(report).pck, rows = KEYPOINTS.map((name, k) => ({ name, shares: figures.map((f) => f.keypoints[k]) })).filter((r) => r.shares.some(known));
  const columns = [nameColumn("keypoint"), ...figures.map((f, i) => ({ title: `PCK@${f.at}`, of: (r) => percent(r.shares[i]), heat: (r) => 1 - (r.shares[i] ?? 1) }))];
  return section("keypoints", "Keypoints", "Of each keypoint that is labelled in some image, how often it is right.", table(columns, rows));
}

function hingesSection({ stages, protocol }) {
  const shown = stages.length === 2 ? stages : stages.slice(-1);
  const lines = shown.flatMap((s) => entries(s.knees_elbows.joints).map(([name, share]) => ({ name, of: s.name, share })));
  const columns = [nameColumn(""), { title: "", of: (r) => r.of, number: false }, ...beyondColumns(shown[0].knees_elbows.beyond_deg)];
  return section("anatomy", "Knees and elbows", `People whose joint lies beyond its range, as HSMR counts them; ${escaped(protocol.name)}.`, table(columns, lines));
}

class EvaluationGallery extends Gallery {
  photo() { return ""; }
}

function worstSection() {
  return section("people", "The worst people", "Those with the largest errors come first. Roots are in one place.", `<div id="gallery"></div>`);
}

function describeWorst(person) {
  const figures = entries(person.figures).map(([name, value]) => [ERRORS[name] || words(name), name.endsWith("_mm") ? `${mm(value)} mm` : percent(value)]);
  const by = person.worst_by[0];
  person.why = ERRORS[by] || words(by);
  person.headline = figures[Object.keys(person.figures).indexOf(by)][1];
  person.key = `row ${person.row}: ${person.imgname}`;
  person.facts = [...figures, ["knee or elbow beyond its range", degrees(person.knees_elbows_deg)]];
}

async function startEvaluation() {
  const read = (id) => document.getElementById(id).textContent;
  const report = JSON.parse(read("report")), people = JSON.parse(read("people"));
  const packed = await Packed.read(read("packed").trim()), measured = last(report).people > 0;
  const sections = [rowsSection(report), measured && figuresSection(report), measured && last(report).pck.length && keypointsSection(report),
    measured && hingesSection(report), people.people.length && worstSection()].filter(Boolean);
  document.getElementById("top").innerHTML = evaluationHead(report);
  document.getElementById("sections").innerHTML = sections.map((s) => `<a href="#${s.id}">${s.title}</a>`).join("");
  const main = document.getElementById("main");
  sections.forEach((s) => { const node = element("section", s.html); node.id = s.id; main.append(node); });
  if (people.people.length) {
    people.people.forEach(describeWorst);
    const root = document.getElementById("gallery");
    new EvaluationGallery(root, people, packed);
    root.querySelector("label.skin").lastChild.textContent = "estimate";
  }
  document.body.dataset.ready = "yes";
}
startEvaluation();
