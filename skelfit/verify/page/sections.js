"use strict";
// The sections of the page, each from a part of the report; a part that the report lacks has no section.
const section = (id, title, lead, html) => ({ id, title, html: `<h2>${escaped(title)}</h2><p class="lead">${lead}</p>${html}` });
const block = (title, html) => `<div><h3>${escaped(title)}</h3>${html}</div>`;
const edgesOf = (h) => h.edges || h.counts.map((_, k) => h.low + k * h.width).concat(h.low + h.counts.length * h.width);
const series = (h, kind = "one") => ({ edges: edgesOf(h), counts: h.counts, kind });
const entries = (found) => Object.entries(found || {});
const SUMMARY_COLUMNS = [["mean", "mean"], ["p50", "median"], ["p95", "95 %"], ["max", "max"]].map(
  ([name, title]) => ({ title, of: (row) => mm(row[name]) }));
const nameColumn = (title) => ({ title, of: (row) => words(row.name), number: false });
const named = (found) => entries(found).map(([name, value]) => ({ name, ...value }));

function integritySection({ integrity }) {
  const statuses = entries(integrity.statuses).sort((a, b) => b[1] - a[1]);
  const kinds = { ok: "one", limit_violation: "three" };
  const rows = statuses.map(([name, value]) => ({ name: words(name), value, text: count(value), kind: kinds[name] || "two" }));
  const rejected = entries(integrity.rejected).map(([name, value]) => ({ name, value }));
  let html = `<div class="columns">${block("What became of the input rows", bars(rows, integrity.rows_in))}`;
  if (rejected.length) html += block("Why rows are not in the shards", table([nameColumn("status: reason"), { title: "rows", of: (r) => count(r.value) }], rejected));
  html += "</div>";
  const damage = integrity.damage || [];
  if (damage.length) {
    const columns = [["shard", "shard"], ["sample", "sample"], ["kind", "kind"], ["message", "what is wrong"]].map(
      ([name, title]) => ({ title, of: (row) => row[name] || nothing, number: false }));
    const shown = damage.slice(0, 500);
    html += `<h3>Damage</h3><div class="tall wraps">${table(columns, shown)}</div>`;
    if (shown.length < damage.length) html += `<p class="note">The first ${count(shown.length)} of ${count(damage.length)}; the JSON report has all of them.</p>`;
  }
  const lead = damage.length
    ? `${count(damage.length)} faults were found in ${count(integrity.shards)} shards.`
    : `${count(integrity.shards)} shards are whole: every byte is as it was written, every sample decodes, and all ${count(integrity.rows_in)} input rows are accounted for.`;
  return section("integrity", "Integrity", lead, html);
}

function accuracySection({ accuracy, subsets, extremity }) {
  const spread = (name, title) => {
    const found = accuracy[name], h = found.histogram;
    const marks = [{ at: found.p50, text: `median ${mm(found.p50)}` }, { at: found.p95, text: `95 % ${mm(found.p95)}`, line: 1 }];
    return block(title, histogram({ series: [series(h)], marks, label: "mm" }));
  };
  let html = `<div class="columns">${spread("pve_mm", "Mean vertex error (PVE) of each person")}${spread("max_vertex_mm", "Largest vertex error of each person")}</div>`;
  const sets = named(accuracy.joints).filter((set) => known(set.mpjpe_mm?.mean));
  if (sets.length) {
    const column = (measure, what, title) => ({ title, of: (set) => mm(set[measure]?.[what]) });
    html += "<h3>Joints, mm</h3>" + table([nameColumn("joint set"), column("mpjpe_mm", "mean", "MPJPE"), column("root_mpjpe_mm", "mean", "roots matched"),
      column("pa_mpjpe_mm", "mean", "PA-MPJPE"), column("pa_mpjpe_mm", "p95", "PA, 95 %")], sets) +
      `<p class="note">${sets.map((set) => `${escaped(set.name)}: ${escaped(set.regressor)}`).join(". ")}.</p>`;
  }
  html += `<div class="columns">`;
  const by = named(subsets);
  if (by.length) html += block("By subset, PVE in mm", table([nameColumn("subset"), { title: "people", of: (r) => count(r.people) }, ...SUMMARY_COLUMNS], by.map((r) => ({ ...r, ...r.pve_mm }))));
  const bent = (extremity || []).filter((r) => r.people > 0);
  if (bent.length) {
    html += block("Mean PVE by how far the label bends the body", bars(bent.map((r) => ({
      name: `${r.from_deg}–${r.to_deg}° (${count(r.people)})`, value: r.pve_mm.mean, text: `${mm(r.pve_mm.mean)} mm` }))));
  }
  html += "</div>";
  const lead = `${count(accuracy.people)} people posed again from the stored parameters; errors are of SKEL's fitted skin to SMPL's.`;
  return section("accuracy", "Accuracy", lead, html);
}

function partsSection({ parts }) {
  const rows = named(parts.parts).filter((r) => known(r.mean)).sort((a, b) => b.mean - a.mean);
  const html = `<div class="columns"><div><div class="painted"><canvas id="body" tabindex="0" aria-label="A body painted with the mean error of each vertex: drag to turn"></canvas></div><div id="bodyscale"></div></div>${
    block("Mean vertex error by body part", bars(rows.map((r) => ({ name: words(r.name), value: r.mean, text: `${mm(r.mean)} mm` }))))}</div>`;
  return section("parts", "Where on the body", "The mean distance of each vertex over all people. Drag to turn.", html);
}

function reprojectionSection({ reprojection }) {
  const { smpl, skel } = reprojection;
  const columns = [nameColumn(""), { title: "mean, px", of: (r) => mm(r.px.mean) }, { title: "median, px", of: (r) => mm(r.px.p50) }, { title: "95 %, px", of: (r) => mm(r.px.p95) },
    { title: "PCK@0.05", of: (r) => percent(r.pck["0.05"]) }, { title: "PCK@0.1", of: (r) => percent(r.pck["0.1"]) }];
  let html = table(columns, [{ name: "SMPL label", ...smpl }, { name: "SKEL fit", ...skel }]) + `<div class="columns">`;
  if (smpl.px.histogram) {
    const high = Math.max(smpl.px.p95, skel.px.p95) * 1.6;
    html += `<div>${histogram({ series: [series(smpl.px.histogram, "three"), series(skel.px.histogram, "two")], label: "px", low: 0, high })}${
      legend([["three", "SMPL label"], ["two", "SKEL fit"]])}</div>`;
  }
  const told = [["bad_label", "people whose label is far from their keypoints"], ["bad_fit", "people whose fit is farther off than their label"],
    ["swapped", "people whose keypoints look like those of the other side"]];
  html += `<div class="tiles">${told.filter(([name]) => known(reprojection[name])).map(([name, text]) => `<div class="tile"><b>${count(reprojection[name])}</b><span>${text}</span></div>`).join("")}</div></div>`;
  return section("reprojection", "In the picture", `Keypoints of both skins against those that the labels give, of ${count(reprojection.people)} people. A bad label shows in both lines, a bad fit in the second alone.`, html);
}

const BEYOND = ["5", "10", "20", "30"];
const beyondColumns = BEYOND.map((k) => ({ title: `>${k}°`, of: (r) => percent(r[k]), heat: (r) => Math.sqrt(r[k] || 0) }));

function anatomySection({ anatomy }) {
  const rates = named(anatomy.violations).filter((r) => r.name !== "any");
  const worst = [...rates].sort((a, b) => b["5"] - a["5"] || b["10"] - a["10"]);
  const columns = [nameColumn("degree of freedom"), ...beyondColumns];
  let html = `<div class="columns"><div><h3>People whose angle lies beyond its limit by more than</h3><div class="tall">${table(columns, worst)}</div></div><div>`;
  const hinges = named(anatomy.knees_elbows);
  if (hinges.length) {
    const lines = hinges.flatMap((r) => [{ name: r.name, of: "SMPL label", ...r.smpl }, { name: "", of: "SKEL fit", ...r.skel }]);
    html += "<h3>Knees and elbows, as HSMR counts them</h3>" + table([nameColumn(""), { title: "", of: (r) => r.of, number: false }, ...beyondColumns], lines);
  }
  html += bonesBlock(anatomy.bones) + asymmetryBlock(anatomy.asymmetry) + jumpsBlock(anatomy.jumps) + "</div></div>";
  return section("anatomy", "Anatomy", "Angles against HSMR's joint limits, bones against the skin, left against right.", html);
}

function bonesBlock(bones) {
  if (!bones || !bones.people) return "";
  const joints = entries(bones.joints).filter(([, v]) => v > 0).sort((a, b) => b[1] - a[1]).slice(0, 8);
  return `<h3>Bones outside the skin</h3><p class="note">Of ${count(bones.people)} people: ${percent(bones.share.mean)} of the bone vertices are outside; the furthest by ${mm(bones.depth_mm.mean)} mm in the mean, ${mm(bones.depth_mm.max)} mm at most.</p>` +
    bars(joints.map(([name, value]) => ({ name: words(name), value, text: percent(value), kind: "two" })));
}

function asymmetryBlock(asymmetry) {
  const rows = named(asymmetry).filter((r) => known(r.mean_deg)).sort((a, b) => Math.abs(b.mean_deg) - Math.abs(a.mean_deg)).slice(0, 10);
  if (!rows.length) return "";
  return "<h3>Right minus left</h3>" + table([nameColumn("pair"), { title: "right", of: (r) => degrees(r.right_deg) }, { title: "left", of: (r) => degrees(r.left_deg) }, { title: "difference", of: (r) => degrees(r.mean_deg), heat: (r) => Math.abs(r.mean_deg) / 20 }], rows);
}

function jumpsBlock(jumps) {
  if (!jumps || !jumps.pairs) return "";
  return `<h3>Jumps in sequences</h3><p class="note">${count(jumps.jumps)} of ${count(jumps.pairs)} pairs of neighbouring frames.</p>`;
}

// Right and left of a joint in one panel.
function anglePanels(angles) {
  const panels = new Map();
  for (const [name, angle] of entries(angles)) {
    const side = /_r(_|$)/.test(name) ? "r" : /_l(_|$)/.test(name) ? "l" : "";
    const title = words(side ? name.replace(new RegExp(`_${side}(?=_|$)`), "") : name);
    panels.set(title, { ...panels.get(title), [side || "m"]: angle });
  }
  return [...panels];
}

function anglesSection({ anatomy }) {
  const panel = ([title, { m, r, l }]) => {
    const shown = [[m, "three"], [r, "two"], [l, "one"]].filter(([a]) => a);
    const bounds = shown.map(([a]) => a.limits_deg).filter((b) => b && known(b[0]));
    const shadeOutside = bounds.length ? [Math.min(...bounds.map((b) => b[0])), Math.max(...bounds.map((b) => b[1]))] : null;
    const ends = shown.flatMap(([a]) => [a.p001 ?? quantile(a, 0.001), a.p999 ?? quantile(a, 0.999)]).concat(shadeOutside || []);
    const [low, high] = [Math.min(...ends), Math.max(...ends)], margin = 0.05 * (high - low) + 1;
    return `<div><h3>${escaped(title)}</h3>${histogram({ series: shown.map(([a, kind]) => series(a, kind)), shadeOutside, low: low - margin, high: high + margin, width: 240, height: 96 })}</div>`;
  };
  const html = legend([["two", "right"], ["one", "left"], ["three", "middle of the body"], ["beyond", "beyond the limits"]]) + `<div class="angles">${anglePanels(anatomy.angles).map(panel).join("")}</div>`;
  return section("angles", "Joint angles", "How often each angle occurs, in degrees.", html);
}

// The value below which a share of a histogram lies.
function quantile(h, share) {
  const edges = edgesOf(h), goal = share * h.counts.reduce((a, b) => a + b, 0);
  let sum = 0;
  const bin = h.counts.findIndex((c) => (sum += c) >= goal && sum > 0);
  return share < 0.5 ? edges[bin] : edges[bin + 1];
}

function keepSection({ keep }) {
  const rows = named(keep.gates);
  const html = `<div class="tiles"><div class="tile"><b>${count(keep.kept)}</b><span>people are kept</span></div><div class="tile"><b>${count(keep.dropped)}</b><span>people are dropped</span></div></div>` +
    table([nameColumn("gate"), { title: "limit", of: (r) => (r.limit ?? nothing) }, { title: "people beyond it", of: (r) => count(r.dropped) }], rows);
  return section("keep", "Whom to keep", "Named gates, each counted for itself; a person may break several.", html);
}

function peopleSection(_, people) {
  const left = people.skipped.map((p) => `${p.key}: ${p.reason}`);
  return section("people", "The worst people", "Who is furthest from the label, first. Look at them before you train on the rest.",
    `<div id="gallery"></div>${left.length ? `<p class="note">Not drawn: ${escaped(left.join("; "))}</p>` : ""}`);
}
