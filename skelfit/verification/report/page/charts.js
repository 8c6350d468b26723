"use strict";
// Text, numbers, tables and charts. Charts are SVG; colours come from the style sheet.
const escapes = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" };
const escaped = (text) => String(text).replace(/[&<>"']/g, (c) => escapes[c]);
const known = (value) => typeof value === "number" && Number.isFinite(value);
const nothing = "–";

function element(name, html = "", kind = "") {
  const node = document.createElement(name);
  node.innerHTML = html;
  if (kind) node.className = kind;
  return node;
}

// A count with separators: 12,345.
const count = (value) => (known(value) ? Math.round(value).toLocaleString("en") : nothing);
const several = (value, name) => `${count(value)} ${name}${value === 1 ? "" : "s"}`;
// A number with so many decimals.
const fixed = (digits, unit = "") => (value) => (known(value) ? value.toFixed(digits) + unit : nothing);
const mm = fixed(2), degrees = fixed(1, "°");
// A share of 1 in %; small shares have more decimals.
function percent(value) {
  if (!known(value)) return nothing;
  const p = 100 * value;
  return (p === 0 ? "0" : p < 0.01 ? "<0.01" : p < 1 ? p.toFixed(2) : p < 99.95 ? p.toFixed(1) : "100") + "%";
}
const words = (name) => String(name).replaceAll("_", " ");

// columns: [{title, of: row => text, number, heat: row => 0..1}]
function table(columns, rows, kind = "") {
  const cell = (c, row) => {
    const heat = c.heat ? Math.max(0, Math.min(1, c.heat(row) || 0)) : 0;
    const tint = heat > 0 ? ` style="background:color-mix(in srgb, var(--bad) ${(8 + 62 * heat).toFixed(0)}%, transparent)"` : "";
    return `<td class="${c.number === false ? "" : "number"}"${tint}>${escaped(c.of(row))}</td>`;
  };
  const head = columns.map((c) => `<th class="${c.number === false ? "" : "number"}">${escaped(c.title)}</th>`).join("");
  const body = rows.map((row) => `<tr>${columns.map((c) => cell(c, row)).join("")}</tr>`).join("");
  return `<div class="scroll"><table class="${kind}"><thead><tr>${head}</tr></thead><tbody>${body}</tbody></table></div>`;
}

// About `number` round values from low to high.
function ticks(low, high, number = 5) {
  const rough = (high - low) / number, power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((k) => k * power >= rough);
  const values = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + 1e-9 * step; k++) values.push(Number((k * step).toPrecision(12)));
  return values;
}

const coordinates = (values) => values.map((v) => v.toFixed(1)).join(" ");

// A chart: `inside(x, y)` draws with the scales. Ticks are below the chart, and left of it where unitY is given.
function chart({ x: [x0, x1], y: [y0, y1], width = 560, height = 210, label = "", unitY, inside, ticksX }) {
  const left = unitY === undefined ? 8 : 46, right = 12, top = 10, bottom = label ? 40 : 24;
  const x = (v) => left + ((v - x0) / (x1 - x0)) * (width - left - right);
  const y = (v) => height - bottom - ((v - y0) / (y1 - y0)) * (height - top - bottom);
  let axes = `<line class="axis" x1="${left}" x2="${width - right}" y1="${y(y0)}" y2="${y(y0)}"/>`;
  for (const t of ticksX || ticks(x0, x1, width / 90)) {
    axes += `<text class="tick" x="${x(t).toFixed(1)}" y="${y(y0) + 15}" text-anchor="middle">${t}</text>`;
  }
  if (unitY !== undefined) {
    for (const t of ticks(y0, y1, 4)) {
      axes += `<line class="grid" x1="${left}" x2="${width - right}" y1="${y(t).toFixed(1)}" y2="${y(t).toFixed(1)}"/>`;
      axes += `<text class="tick" x="${left - 6}" y="${(y(t) + 4).toFixed(1)}" text-anchor="end">${t}${unitY}</text>`;
    }
  }
  if (label) axes += `<text class="tick" x="${(left + width - right) / 2}" y="${height - 5}" text-anchor="middle">${escaped(label)}</text>`;
  return `<svg class="chart" viewBox="0 0 ${width} ${height}" role="img">${axes}${inside(x, y)}</svg>`;
}

// Histograms in one chart. series: [{edges, counts, kind}]; marks: [{at, text}].
function histogram({ series, marks = [], label, shadeOutside, width, height, low, high, legend }) {
  const full = series.filter((s) => s.counts.some((c) => c > 0));
  if (!full.length) return `<p class="nothing">No values.</p>`;
  const used = full.map((s) => [s.edges[s.counts.findIndex((c) => c > 0)], s.edges[s.counts.findLastIndex((c) => c > 0) + 1]]);
  const x0 = low ?? Math.min(...used.map((u) => u[0])), x1 = high ?? Math.max(...used.map((u) => u[1]));
  // Densities make series with different counts and bins comparable.
  const dense = full.map((s) => {
    const total = s.counts.reduce((a, b) => a + b, 0);
    return { ...s, total, heights: s.counts.map((c, i) => c / total / (s.edges[i + 1] - s.edges[i])) };
  });
  // A spike is cut off where the other series would become flat.
  const peaks = dense.map((s) => Math.max(...s.heights)), top = Math.min(Math.max(...peaks), 3 * Math.min(...peaks));
  const inside = (x, y) => {
    let drawn = "";
    if (shadeOutside) {
      for (const [a, b] of [[x0, shadeOutside[0]], [shadeOutside[1], x1]]) {
        if (b > a) drawn += `<rect class="beyond" x="${x(a).toFixed(1)}" y="${y(top * 1.06).toFixed(1)}" width="${(x(b) - x(a)).toFixed(1)}" height="${(y(0) - y(top * 1.06)).toFixed(1)}"/>`;
      }
    }
    for (const s of dense) {
      let path = "";
      s.heights.forEach((h, i) => {
        if (s.edges[i + 1] <= x0 || s.edges[i] >= x1) return;
        const [a, b] = [Math.max(s.edges[i], x0), Math.min(s.edges[i + 1], x1)];
        path += `${path ? "L" : `M${x(a).toFixed(1)} ${y(0).toFixed(1)}L`}${coordinates([x(a), y(Math.min(h, top))])}L${coordinates([x(b), y(Math.min(h, top))])}`;
      });
      drawn += `<path class="area ${s.kind}" d="${path}L${coordinates([x(Math.min(x1, s.edges.at(-1))), y(0)])}Z"/>`;
    }
    for (const m of marks.filter((m) => known(m.at) && m.at >= x0 && m.at <= x1)) {
      const late = x(m.at) > (width || 560) * 0.72;
      drawn += `<line class="mark" x1="${x(m.at).toFixed(1)}" x2="${x(m.at).toFixed(1)}" y1="${y(0).toFixed(1)}" y2="${y(top * 1.06).toFixed(1)}"/>`;
      drawn += `<text class="tick strong" x="${(x(m.at) + (late ? -5 : 5)).toFixed(1)}" y="${(y(top * 1.06) + 10 + 14 * (m.line || 0)).toFixed(1)}" text-anchor="${late ? "end" : "start"}">${escaped(m.text)}</text>`;
    }
    return drawn;
  };
  return chart({ x: [x0, x1], y: [0, top * 1.06], width, height, label, inside }) + (legend || "");
}

// First and last x of each run of true values; a run ends where neighbours are further than `step` apart.
function runs(on, x, step) {
  const found = [];
  on.forEach((v, i) => {
    if (!v) return;
    if (i > 0 && on[i - 1] && x[i] - x[i - 1] < 1.5 * step) found.at(-1)[1] = x[i];
    else found.push([x[i], x[i]]);
  });
  return found;
}

// Lines over x in one chart. series: [{values, kind}], null where a value is missing; the area outside of `limits` is shaded.
// Neighbours are `step` apart; a line breaks where they are not. contacts: [{on, kind}], a bar at the bottom where a foot is on the floor.
function curves({ x, step = 1, series, limits = [], contacts = [], mark, label, width, height, least = 0 }) {
  const values = series.flatMap((s) => s.values).filter(known);
  if (!values.length) return `<p class="nothing">No values.</p>`;
  const [low, high] = [Math.min(...values), Math.max(...values)], margin = Math.max(0.06 * (high - low), (least - high + low) / 2, 0.5);
  const [y0, y1] = [low - margin, high + margin], ends = [x[0], x.at(-1) > x[0] ? x.at(-1) : x[0] + 1];
  const inside = (px, py) => {
    let drawn = "";
    for (const [a, b] of [[y0, limits[0]], [limits[1], y1]].map(([a, b]) => [Math.max(a, y0), Math.min(b, y1)])) {
      if (b > a) drawn += `<rect class="beyond" x="${px(ends[0]).toFixed(1)}" y="${py(b).toFixed(1)}" width="${(px(ends[1]) - px(ends[0])).toFixed(1)}" height="${(py(a) - py(b)).toFixed(1)}"/>`;
    }
    contacts.forEach(({ on, kind }, row) => runs(on, x, step).forEach(([a, b]) => {
      const [left, right] = [Math.max(a - step / 2, ends[0]), Math.min(b + step / 2, ends[1])];
      drawn += `<rect class="contact ${kind}" x="${px(left).toFixed(1)}" y="${(py(y0) - 4 * (contacts.length - row)).toFixed(1)}" width="${(px(right) - px(left)).toFixed(1)}" height="3"/>`;
    }));
    if (known(mark)) drawn += `<line class="mark" x1="${px(mark).toFixed(1)}" x2="${px(mark).toFixed(1)}" y1="${py(y0).toFixed(1)}" y2="${py(y1).toFixed(1)}"/>`;
    for (const s of series) {
      let path = "", on = false;
      s.values.forEach((v, i) => {
        on = on && known(v) && x[i] - x[i - 1] < 1.5 * step;
        if (known(v)) path += `${on ? "L" : "M"}${coordinates([px(x[i]), py(v)])}${on ? "" : "h0.01"}`;
        on = known(v);
      });
      drawn += `<path class="line ${s.kind}" d="${path}"/>`;
    }
    return drawn;
  };
  return chart({ x: ends, y: [y0, y1], width, height, label, unitY: "°", inside });
}

// Horizontal bars with a common scale: rows [{name, value, text, kind}].
function bars(rows, end = Math.max(...rows.map((r) => r.value || 0))) {
  const line = (r) => `<div class="bar"><span>${escaped(r.name)}</span><i><b class="${r.kind || "one"}" style="width:${((100 * (r.value || 0)) / (end || 1)).toFixed(2)}%"></b></i><em>${escaped(r.text)}</em></div>`;
  return `<div class="bars">${rows.map(line).join("")}</div>`;
}

const legend = (entries) => `<p class="legend">${entries.map(([kind, text]) => `<span><i class="${kind}"></i>${escaped(text)}</span>`).join("")}</p>`;

// The colour scale of painted bodies and its legend: yellow to red for 0..1.
const HEAT = [[0.93, 0.90, 0.82], [0.98, 0.77, 0.42], [0.91, 0.42, 0.24], [0.62, 0.10, 0.22]];
function heat(share) {
  const at = Math.max(0, Math.min(1, share || 0)) * (HEAT.length - 1), k = Math.min(Math.floor(at), HEAT.length - 2);
  return HEAT[k].map((v, i) => v + (HEAT[k + 1][i] - v) * (at - k));
}
const scaleLegend = (end, unit) => {
  const stops = HEAT.map((c) => `rgb(${c.map((v) => Math.round(255 * v)).join(",")})`).join(",");
  return `<p class="scale"><span>0</span><i style="background:linear-gradient(90deg,${stops})"></i><span>${escaped(end)} ${escaped(unit)}</span></p>`;
};
