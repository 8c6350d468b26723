"use strict";
// The worst people: meshes in 3D, and photos with the skeleton.
const COLOURS = { target: [0.42, 0.53, 0.66], skin: [0.87, 0.56, 0.42], bones: [0.93, 0.89, 0.78] };

// Arrays of 16-bit numbers as array_packing.py writes them.
class Packed {
  constructor(bytes) { this.bytes = bytes; }

  static async read(text) {
    const packed = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
    if (!packed.length) return new Packed(packed);
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Packed(new Uint8Array(await new Response(stream).arrayBuffer()));
  }

  // An array (rows, columns), row by row; with `like` the stored numbers are differences from it.
  numbers({ at, rows, columns }, like) {
    const total = rows * columns, result = new Uint16Array(total);
    for (let c = 0; c < columns; c++) {
      let value = 0;
      for (let r = 0, k = at + c * rows; r < rows; r++, k++) {
        value = (value + this.bytes[k] + (this.bytes[k + total] << 8)) & 0xffff;
        result[r * columns + c] = like ? value + like[r * columns + c] : value;
      }
    }
    return result;
  }
}

// Whole units as metres.
const metres = (numbers, unit) => Float32Array.from(new Int16Array(numbers.buffer), (v) => v * unit);

class Gallery {
  constructor(root, data, packed) {
    Object.assign(this, { root, data, packed, shown: { target: true, skin: true, bones: true, error: false } });
    root.innerHTML = `
      <div class="stage">
        <figure class="view">
          <canvas id="person" tabindex="0" aria-label="The person in 3D: drag to turn"></canvas>
          <div class="switches" role="group" aria-label="what is shown">
            <label class="target"><input type="checkbox" name="target" checked><i></i>target mesh</label>
            <label class="skin"><input type="checkbox" name="skin" checked><i></i>fitted skin</label>
            <label class="bones"><input type="checkbox" name="bones" checked><i></i>skeleton</label>
            <label class="error"><input type="checkbox" name="error"><i></i>paint errors</label>
          </div>
          <figcaption>Drag to turn, click and scroll to zoom, double-click to go back.</figcaption>
        </figure>
        <div class="facts"><div class="photo"></div><div class="figures"></div></div>
      </div>
      <div class="strip" role="listbox" aria-label="people"></div>`;
    this.scene = new Scene(root.querySelector("canvas"));
    const topologies = data.topologies;
    this.faces = Object.fromEntries(Object.keys(topologies).map((k) => [k, packed.numbers(topologies[k])]));
    root.querySelectorAll("input").forEach((box) => box.addEventListener("change", () => {
      this.shown[box.name] = box.checked;
      this.paint();
    }));
    this.strip();
    this.choose(0);
  }

  strip() {
    const strip = this.root.querySelector(".strip");
    this.data.people.forEach((person, index) => {
      const picture = person.photo ? `<img src="${person.photo.source}" alt="">` : `<span class="blank">no photo</span>`;
      const button = element("button", `${picture}<b>${escaped(person.headline)}</b><small>${escaped(person.why)}</small>`, "thumb");
      button.title = person.key;
      button.setAttribute("role", "option");
      button.addEventListener("click", () => this.choose(index));
      strip.append(button);
    });
  }

  choose(index) {
    const person = this.data.people[index], unit = this.data.unit, packed = this.packed;
    const target = person.target && packed.numbers(person.target);
    const skin = packed.numbers(person.skin, target);
    // All meshes must be in view, whichever are shown: a label may be far from its fit.
    const frame = metres(target ? Uint16Array.from([...skin, ...target]) : skin, unit);
    this.meshes = {
      frame, target: target && metres(target, unit), skin: metres(skin, unit), bones: metres(packed.numbers(person.bones), unit),
      boneFaces: this.faces[person.topology],
    };
    this.root.querySelectorAll(".thumb").forEach((b, k) => b.setAttribute("aria-selected", k === index));
    for (const name of ["target", "error"]) this.root.querySelector(`label.${name}`).hidden = !target;
    this.root.querySelector(".photo").innerHTML = this.photo(person.photo);
    const rows = person.facts.map(([name, value]) => `<dt>${escaped(name)}</dt><dd>${escaped(value)}</dd>`).join("");
    this.root.querySelector(".figures").innerHTML = `<h3>${escaped(person.key)}</h3><dl>${rows}</dl>`;
    this.paint();
  }

  photo(photo) {
    if (!photo) return `<p class="nothing">No photo in the shards, or no camera.</p>`;
    const [width, height] = photo.size, dot = Math.max(width, height) / 110;
    const line = ([a, b, c, d], kind) => `<line class="${kind}" x1="${a}" y1="${b}" x2="${c}" y2="${d}" stroke-width="${dot * (kind === "under" ? 1.9 : 1.0)}"/>`;
    const bones = ["under", "over"].map((kind) => photo.lines.map((l) => line(l, kind)).join("")).join("");
    const before = (photo.before || []).map((l) => line(l, "before")).join("");
    const given = photo.keypoints.map(([x, y]) => `<circle cx="${x}" cy="${y}" r="${dot}" stroke-width="${dot / 3}"/>`).join("");
    return `<svg viewBox="0 0 ${width} ${height}" role="img" aria-label="photo with the skeleton"><image href="${photo.source}" width="${width}" height="${height}"/>${given}${before}${bones}</svg>` +
      legend([["fitted", before ? "skeleton of these shards" : "fitted skeleton"], ...(before ? [["before", "skeleton of the others (--against)"]] : []), ["given", "keypoints of the label"]]);
  }

  paint() {
    const { target, skin, bones, boneFaces, frame } = this.meshes, faces = this.faces.skin, shown = this.shown, meshes = [];
    const through = shown.bones;
    if (shown.bones) meshes.push({ positions: bones, faces: boneFaces, colour: COLOURS.bones });
    if (shown.skin) {
      const colour = shown.error && target ? errorColours(target, skin) : COLOURS.skin;
      meshes.push({ positions: skin, faces, colour, alpha: shown.error && target ? 1 : through || (shown.target && target) ? 0.45 : 1 });
    }
    if (shown.target && target) meshes.push({ positions: target, faces, colour: COLOURS.target, alpha: shown.skin || through ? 0.25 : 1 });
    this.scene.show(meshes, frame);
    const label = this.root.querySelector("label.error i");
    label.title = `0 to ${ERROR_END_MM} mm`;
  }
}

const ERROR_END_MM = 60;
function errorColours(target, skin) {
  const colours = new Float32Array(skin.length);
  for (let i = 0; i < skin.length; i += 3) {
    const distance = Math.hypot(skin[i] - target[i], skin[i + 1] - target[i + 1], skin[i + 2] - target[i + 2]);
    colours.set(heat((1000 * distance) / ERROR_END_MM), i);
  }
  return colours;
}
