"use strict";
// The sections of the page, each from one part of the report. Parts that the report lacks have no section.
const section = (id, title, lead, html) => ({ id, title, html: `<h2>${escaped(title)}</h2><p class="lead">${lead}</p>${html}` });
// What a row of the shards is: a frame, where all that were measured are frames of sequences.
const rowsOf = ({ accuracy, anatomy }) => anatomy?.jumps?.frames && anatomy.jumps.frames === accuracy?.people ? "frames" : "people";
const block = (title, html) => `<div><h3>${escaped(title)}</h3>${html}</div>`;
// `bars` is a histogram with bins of equal width from `start` on; the last one is open.
const series = ({ bars: { start, width, counts } }, kind = "one") => ({ edges: [...counts.keys(), counts.length].map((k) => start + k * width), counts, kind });
const entries = (part) => Object.entries(part || {});
const SUMMARY_COLUMNS = [["mean", "mean"], ["p50", "median"], ["p95", "95 %"], ["max", "max"]].map(
  ([name, title]) => ({ title, of: (row) => mm(row[name]) }));
const nameColumn = (title) => ({ title, of: (row) => words(row.name), number: false });
const named = (part) => entries(part).map(([name, value]) => ({ name, ...value }));

function integritySection({ integrity }) {
  const statuses = entries(integrity.statuses).sort((a, b) => b[1] - a[1]);
  const kinds = { ok: "one", limit_violation: "three" };
  const rows = statuses.map(([name, value]) => ({ name: words(name), value, text: count(value), kind: kinds[name] || "two" }));
  const rejected = entries(integrity.rejected).map(([name, value]) => ({ name, value }));
  let html = `<div class="columns">${block("What became of the input rows", bars(rows, integrity.rows_in))}`;
  if (rejected.length) html += block("Why rows are not in the shards", table([nameColumn("status: reason"), { title: "rows", of: (r) => count(r.value) }], rejected));
  html += "</div>";
  const damage = integrity.damage, more = integrity.faults + (integrity.unfinished ? 1 : 0) - damage.length;
  if (damage.length) {
    const columns = [["shard", "shard"], ["sample", "sample"], ["kind", "kind"], ["message", "what is wrong"]].map(
      ([name, title]) => ({ title, of: (row) => row[name] || nothing, number: false }));
    if (integrity.faults) html += "<h3>Faults by kind</h3>" + bars(entries(integrity.damaged).filter(([name]) => name !== "unfinished").map(([name, value]) => ({ name, value, text: count(value), kind: "two" })));
    html += `<h3>What is wrong</h3><div class="tall wraps">${table(columns, damage)}</div>`;
    if (more > 0) html += `<p class="note">The first ${count(damage.length)} of ${count(damage.length + more)}; the JSON report has all of them.</p>`;
  }
  const shards = several(integrity.shards, integrity.unfinished ? "finished shard" : "shard");
  const lead = integrity.faults
    ? `${integrity.faults === 1 ? "1 fault was" : `${count(integrity.faults)} faults were`} found in ${shards}.`
    : `${shards} ${integrity.shards === 1 ? "is" : "are"} whole: every byte is as it was written, every sample decodes, and all ${count(integrity.rows_in)} input rows are accounted for.${integrity.unfinished ? " The run is not finished." : ""}`;
  return section("integrity", "Integrity", lead, html);
}

function accuracySection({ accuracy, subsets, extremity, anatomy }) {
  const spread = (name, title) => {
    const errors = accuracy[name];
    const marks = [{ at: errors.p50, text: `median ${mm(errors.p50)}` }, { at: errors.p95, text: `95 % ${mm(errors.p95)}`, line: 1 }];
    return block(title, histogram({ series: [series(errors)], marks, label: "mm" }));
  };
  let html = `<div class="columns">${spread("pve_mm", "Mean vertex error (PVE) of each person")}${spread("max_vertex_mm", "Largest vertex error of each person")}</div>`;
  const sets = named(accuracy.joints).filter((set) => known(set.mpjpe_mm?.mean));
  if (sets.length) {
    const column = (measure, what, title) => ({ title, of: (set) => mm(set[measure]?.[what]) });
    html += "<h3>Joints, mm</h3>" + table([nameColumn("joint set"), column("mpjpe_mm", "mean", "MPJPE"), column("root_mpjpe_mm", "mean", "roots matched"),
      column("pa_mpjpe_mm", "mean", "PA-MPJPE"), column("pa_mpjpe_mm", "p95", "PA, 95 %")], sets) +
      `<p class="note">${regressors(sets).join("; ")}.</p>`;
  }
  html += `<div class="columns">`;
  const by = named(subsets);
  if (by.length) html += block("By subset, PVE in mm", table([nameColumn("subset"), { title: "people", of: (r) => count(r.count) }, ...SUMMARY_COLUMNS], by.map((r) => ({ ...r.pve_mm, name: r.name }))));
  const bins = (extremity?.bins || []).filter((r) => r.pve_mm.count > 0);
  if (bins.length) {
    html += block("Mean PVE by the joint rotations of the label (root mean square)", bars(bins.map((r) => ({
      name: `${r.from_deg}–${r.to_deg}° (${count(r.pve_mm.count)})`, value: r.pve_mm.mean, text: `${mm(r.pve_mm.mean)} mm` }))));
  }
  html += "</div>";
  const meshes = accuracy.without_smpl ? ` ${count(accuracy.without_smpl)} have no SMPL parameters, and so no errors.` : "";
  const lead = `${count(accuracy.people)} ${rowsOf({ accuracy, anatomy })} posed again from the stored parameters; errors are of SKEL's fitted skin to SMPL's.${meshes}`;
  return section("accuracy", "Accuracy", lead, html);
}

// Joint sets by their regressor.
function regressors(sets) {
  const by = new Map();
  sets.forEach((set) => by.set(set.regressor, [...(by.get(set.regressor) || []), set.name]));
  return [...by].map(([regressor, names]) => `${escaped(names.join(", "))}: ${escaped(regressor)}`);
}

function partsSection({ parts }) {
  const rows = named(parts.mm).filter((r) => known(r.mean)).sort((a, b) => b.mean - a.mean);
  const html = `<div class="columns"><div><div class="painted"><canvas id="body" tabindex="0" aria-label="A body painted with the mean error of each vertex: drag to turn"></canvas></div><div id="bodyscale"></div></div>${
    block("Mean vertex error by body part", bars(rows.map((r) => ({ name: words(r.name), value: r.mean, text: `${mm(r.mean)} mm` }))))}</div>`;
  return section("parts", "Where on the body", "The mean distance of each vertex over all people. Drag to turn.", html);
}

function reprojectionSection({ reprojection }) {
  const { smpl, skel } = reprojection;
  const columns = [nameColumn(""), { title: "mean, px", of: (r) => mm(r.px.mean) }, { title: "median, px", of: (r) => mm(r.px.p50) }, { title: "95 %, px", of: (r) => mm(r.px.p95) },
    { title: "PCK@0.05", of: (r) => percent(r.pck_05) }, { title: "PCK@0.1", of: (r) => percent(r.pck_10) }];
  let html = table(columns, [{ name: "SMPL label", ...smpl }, { name: "SKEL fit", ...skel }]) + `<div class="columns">`;
  if (smpl.px.bars) {
    const high = Math.max(smpl.px.p95, skel.px.p95) * 1.6;
    html += `<div>${histogram({ series: [series(smpl.px, "three"), series(skel.px, "two")], label: "px", low: 0, high })}${
      legend([["three", "SMPL label"], ["two", "SKEL fit"]])}</div>`;
  }
  const measures = [["bad_label", "people whose label is far from their keypoints"], ["bad_fit", "people whose fit is farther off than their label"],
    ["keypoints_exchanged", "people whose keypoints look like those of the other side"]];
  html += `<div class="tiles">${measures.filter(([name]) => known(reprojection[name])).map(([name, text]) => `<div class="tile"><b>${count(reprojection[name])}</b><span>${text}</span></div>`).join("")}</div></div>`;
  return section("reprojection", "In the image", `Keypoints of both skins against those that the labels give, of ${count(reprojection.people)} people. A bad label shows in both lines, a bad fit in the second alone.`, html);
}

// Columns for `share` of a row: shares of people beyond so many degrees.
const beyondColumns = (degs) => degs.map((d, k) => ({ title: `>${d}°`, of: (r) => percent(r.share[k]), heat: (r) => Math.sqrt(r.share[k] || 0) }));

function anatomySection({ anatomy, ground }) {
  const { violations } = anatomy, dofs = violations.dofs.filter((r) => r.limits_deg);
  const order = (a, b) => a.share.map((v, k) => b.share[k] - v).find((d) => d) || 0;
  const worst = dofs.filter((r) => r.share[0] > 0).sort(order), others = dofs.length - worst.length;
  const rows = [{ dof: "any", share: violations.any }, ...worst];
  const columns = [{ title: "degree of freedom", of: (r) => words(r.dof), number: false }, ...beyondColumns(violations.beyond_deg)];
  const html = `<div class="columns"><div><h3>People whose angle lies beyond its limit by more than</h3><div class="tall">${table(columns, rows)}</div>` +
    (others ? `<p class="note">The other ${others} are never more than ${violations.beyond_deg[0]}° beyond.</p>` : "") +
    asymmetryBlock(anatomy.asymmetry) +
    `</div><div>${hingesBlock(anatomy.knees_elbows)}${bonesBlock(anatomy.bones)}${jumpsBlock(anatomy.jumps, anatomy.jitter)}${groundBlock(ground)}</div></div>`;
  return section("anatomy", "Anatomy", `Angles against their limits (${escaped(violations.limits)}), bones against the skin, right against left.`, html);
}

function hingesBlock(hinges) {
  const lines = named(hinges.joints).flatMap((r) => [{ name: r.name, of: "SMPL label", share: r.smpl }, { name: "", of: "SKEL fit", share: r.skel }]);
  return "<h3>Knees and elbows, as HSMR counts them</h3>" +
    table([nameColumn(""), { title: "", of: (r) => r.of, number: false }, ...beyondColumns(hinges.beyond_deg)], lines);
}

function bonesBlock(bones) {
  if (!bones.people) return "";
  const joints = entries(bones.share_by_joint).filter(([, v]) => v > 0).sort((a, b) => b[1] - a[1]).slice(0, 8);
  return `<h3>Bones outside the skin</h3><p class="note">Of a sample of ${count(bones.people)} people: ${percent(bones.share.mean)} of the bone vertices are outside; the furthest by ${mm(bones.depth_mm.mean)} mm on average, ${mm(bones.depth_mm.max)} mm at most. By bones:</p>` +
    bars(joints.map(([name, value]) => ({ name: words(name), value, text: percent(value), kind: "two" })));
}

function asymmetryBlock({ dofs, sides_exchanged: exchanged }) {
  const apart = (r) => Math.abs(r.mean_deg[0] - r.mean_deg[1]);
  const rows = [...dofs].sort((a, b) => apart(b) - apart(a)).slice(0, 8);
  const columns = [{ title: "mean angle", of: (r) => words(r.dof), number: false }, { title: "right", of: (r) => degrees(r.mean_deg[0]) }, { title: "left", of: (r) => degrees(r.mean_deg[1]) },
    { title: "apart", of: (r) => degrees(apart(r)), heat: (r) => apart(r) / 30 }];
  const exchangedText = exchanged ? `${count(exchanged)} people have left and right exchanged in the fit. ` : "No person has left and right exchanged in the fit. ";
  return `<h3>Right against left</h3><p class="note">${exchangedText}The pairs of angles that differ most in the mean, the left ones mirrored:</p>${table(columns, rows)}`;
}

function jumpsBlock(jumps, jitter) {
  if (!jumps.pairs) return "";
  const lines = (part, unit) => entries(part).map(([name, value]) => ({ name: `more than ${name}${unit}`, value, text: percent(value), kind: "two" }));
  const worst = jumps.worst.slice(0, 5), columns = [{ title: "largest beyond the label", of: (r) => r.key, number: false }, { title: "joint", of: (r) => words(r.joint), number: false },
    { title: "turns", of: (r) => degrees(r.turn_deg) }, { title: "label", of: (r) => degrees(r.label_turn_deg) }];
  return `<h3>Jumps in sequences</h3><p class="note">${count(jumps.pairs)} pairs of neighbouring frames of ${count(jumps.sequences)} sequences: how often a joint turns by more, turns by more than in the label, and how often the fit moves by more than its label.</p>` +
    bars([...lines(jumps.turn_above, "°"), ...lines(jumps.added_deg_above, "° beyond the label"), ...lines(jumps.added_mm_above, " mm added")], 1) + table(columns, worst) + jitterBlock(jitter);
}

function groundBlock(ground) {
  if (!ground) return "";
  const statuses = entries(ground.statuses).map(([name, n]) => `${words(name)} ${count(n)}`).join(", ");
  const rows = [["slip of feet on the floor, mm/s", ground.slip_mm_s], ["soles below the floor, mm", ground.penetration_mm], ["spread of resting soles, mm", ground.spread_mm]];
  const columns = [nameColumn("of sequences"), ...[["mean", "mean"], ["median", "p50"], ["95 %", "p95"], ["most", "max"]].map(([title, name]) => ({ title, of: (r) => fixed(1)(r[name]) }))];
  return `<h3>The ground</h3><p class="note">${several(ground.sequences, "sequence")}: ${escaped(statuses)}.</p>` +
    (ground.slip_mm_s.count ? table(columns, rows.map(([name, spread]) => ({ name, ...spread }))) : "");
}

function jitterBlock(jitter) {
  if (!jitter.triples) return "";
  const rows = entries(jitter.by_joint).map(([name, [fit, label]]) => ({ name, fit, label })).filter((r) => r.fit > 0).sort((a, b) => b.fit - (b.label || 0) - a.fit + (a.label || 0)).slice(0, 8);
  const two = fixed(2, "°");
  return `<h3>Jitter</h3><p class="note">By how much a joint's turn to the next frame differs from the one before, per frame²: ${two(jitter.fit_deg.mean)} in the mean over the joints of the body, ${two(jitter.label_deg.mean)} in the label. Furthest beyond it:</p>` +
    table([nameColumn("joint"), { title: "fit", of: (r) => two(r.fit) }, { title: "label", of: (r) => two(r.label) }], rows);
}

// Panels of joints, with right and left in one.
function anglePanels(dofs) {
  const panels = new Map();
  for (const [name, angle] of entries(dofs)) {
    const side = /_r(_|$)/.test(name) ? "r" : /_l(_|$)/.test(name) ? "l" : "";
    const title = words(side ? name.replace(new RegExp(`_${side}(?=_|$)`), "") : name);
    panels.set(title, { ...panels.get(title), [side || "m"]: angle });
  }
  return [...panels];
}

function anglesSection({ anatomy }) {
  const { width_deg: width, dofs } = anatomy.angles;
  const panel = ([title, { m, r, l }]) => {
    const shown = [[m, "three"], [r, "two"], [l, "one"]].filter(([a]) => a);
    const drawn = shown.map(([a, kind]) => series({ bars: { start: a.start_deg, width, counts: a.counts } }, kind));
    const bounds = shown.map(([a]) => a.limits_deg).filter(Boolean);
    const shadeOutside = bounds.length ? [Math.min(...bounds.map((b) => b[0])), Math.max(...bounds.map((b) => b[1]))] : null;
    const ends = drawn.flatMap((s) => [quantile(s, 0.001), quantile(s, 0.999)]).concat(shadeOutside || []).filter(known);
    const [low, high] = [Math.min(...ends), Math.max(...ends)], margin = 0.05 * (high - low) + 1;
    return `<div><h3>${escaped(title)}</h3>${histogram({ series: drawn, shadeOutside, low: low - margin, high: high + margin, width: 240, height: 96 })}</div>`;
  };
  const html = legend([["two", "right"], ["one", "left"], ["three", "middle of the body"], ["beyond", "beyond the limits"]]) + `<div class="angles">${anglePanels(dofs).map(panel).join("")}</div>`;
  return section("angles", "Joint angles", "How often each angle occurs, in degrees. Where the limits of right and left differ, the wider one counts.", html);
}

// The edge of the bin in which a share of the histogram is reached.
function quantile({ edges, counts }, share) {
  const goal = share * counts.reduce((a, b) => a + b, 0);
  let sum = 0;
  const bin = counts.findIndex((c) => (sum += c) >= goal && sum > 0);
  return share < 0.5 ? edges[bin] : edges[bin + 1];
}

const UNITS = { count, share: percent, mm, px: mm, deg: fixed(2) };
const signed = (value, write) => (!known(value) ? nothing : value === 0 ? "=" : `${value < 0 ? "−" : "+"}${write(Math.abs(value))}`);

// A table of both datasets and their difference, each with the same columns.
function comparedTable({ columns, rows }) {
  const groups = [["this", "this", (v, write) => write(v)], ["against", "against", (v, write) => write(v)], ["difference", "difference", signed]];
  const shown = rows.filter((r) => r.this.some((v) => v) || r.against.some((v) => v));
  const cells = (make) => groups.map((group) => columns.map((column, k) => make(group, column, k)).join("")).join("");
  const first = (k) => (k === 0 ? " first" : "");
  const one = columns.length === 1;
  const head = `<tr><th></th>${groups.map(([title]) => `<th class="${one ? "number" : "group"} first" colspan="${columns.length}">${title}</th>`).join("")}</tr>` +
    (one ? "" : `<tr><th></th>${cells((_, column, k) => `<th class="number${first(k)}">${escaped(column.title)}</th>`)}</tr>`);
  const body = shown.map((r) => `<tr><td>${escaped(words(r.name))}</td>${cells(([, side, write], column, k) => `<td class="number ${side}${first(k)}">${escaped(write(r[side][k], UNITS[column.unit]))}</td>`)}</tr>`).join("");
  const left = rows.length - shown.length;
  return `<div class="scroll"><table class="compared"><thead>${head}</thead><tbody>${body}</tbody></table></div>` +
    (left ? `<p class="note">${several(left, "more row")}: nothing in either.</p>` : "");
}

const OPEN = 3;  // tables that are unfolded at first
function againstSection({ integrity, accuracy, against, comparison }) {
  let html = "";
  if (accuracy && against.pve_mm) {
    const both = (name, title) => block(title, histogram({ series: [series(against[name], "three"), series(accuracy[name], "two")], label: "mm", height: 180 }));
    html += `<div class="columns">${both("pve_mm", "Mean vertex error (PVE) of each person")}${both("max_vertex_mm", "Largest vertex error of each person")}</div>` +
      legend([["two", `this: ${integrity.name}`], ["three", `against: ${against.name}`]]);
  }
  const full = comparison.filter((t) => t.rows.some((r) => r.this.some((v) => v) || r.against.some((v) => v)));
  html += full.map((t, k) => `<details${k < OPEN ? " open" : ""}><summary>${escaped(t.title)}</summary>${comparedTable(t)}</details>`).join("");
  return section("against", "Side by side", `${escaped(integrity.name)} against ${escaped(against.name)}: every table of both. A difference is this minus the other.`, html);
}

function keepSection({ keep }) {
  const rows = named(keep.gates);
  if (keep.damaged) rows.push({ name: "damaged", limit: "", unit: "", dropped: keep.damaged, meaning: "something is wrong with the sample or its row" });
  const html = `<div class="tiles"><div class="tile"><b>${count(keep.kept)}</b><span>people are kept</span></div><div class="tile"><b>${count(keep.dropped)}</b><span>people are dropped</span></div></div>` +
    table([nameColumn("gate"), { title: "limit", of: (r) => `${r.limit} ${r.unit}`.trim() }, { title: "people beyond it", of: (r) => count(r.dropped) }, { title: "what it is", of: (r) => r.meaning, number: false }], rows);
  return section("keep", "Which people to keep", "Gates, each counted by itself; several may drop the same person.", html);
}

function peopleSection(_, people) {
  const left = people.skipped.map((p) => `${p.key}: ${p.reason}`);
  return section("people", "The worst people", "Those furthest from the label come first. Look at them before you train on the others.",
    `<div id="gallery"></div>${left.length ? `<p class="note">Not drawn: ${escaped(left.join("; "))}</p>` : ""}`);
}
