"use strict";
// Meshes that can be rotated: WebGL 2 without a library. Drawn only after a change.
const VERTEX_SHADER = `#version 300 es
in vec3 position; in vec3 normal; in vec3 colour;
uniform mat4 view; uniform mat4 projection;
out vec3 eye; out vec3 n; out vec3 c;
void main() {
  vec4 p = view * vec4(position, 1.0);
  eye = -p.xyz; n = mat3(view) * normal; c = colour;
  gl_Position = projection * p;
}`;
const FRAGMENT_SHADER = `#version 300 es
precision highp float;
in vec3 eye; in vec3 n; in vec3 c;
uniform float alpha;
out vec4 result;
void main() {
  vec3 e = normalize(eye), m = normalize(n);
  if (dot(m, e) < 0.0) m = -m;
  float key = max(dot(m, normalize(vec3(0.5, 0.7, 0.7))), 0.0);
  float sky = 0.5 + 0.5 * m.y;
  float rim = pow(1.0 - abs(dot(m, e)), 2.5);
  vec3 shaded = c * (0.30 + 0.25 * sky + 0.55 * key) + 0.10 * rim;
  float a = alpha < 1.0 ? mix(alpha, 0.9, rim) : 1.0;  // transparent meshes are opaque at their outline
  result = vec4(shaded * a, a);
}`;

// Normals of vertices, from the faces around them.
function vertexNormals(positions, faces) {
  const normals = new Float32Array(positions.length);
  for (let i = 0; i < faces.length; i += 3) {
    const [a, b, c] = [3 * faces[i], 3 * faces[i + 1], 3 * faces[i + 2]];
    const ux = positions[b] - positions[a], uy = positions[b + 1] - positions[a + 1], uz = positions[b + 2] - positions[a + 2];
    const vx = positions[c] - positions[a], vy = positions[c + 1] - positions[a + 1], vz = positions[c + 2] - positions[a + 2];
    const nx = uy * vz - uz * vy, ny = uz * vx - ux * vz, nz = ux * vy - uy * vx;
    for (const k of [a, b, c]) { normals[k] += nx; normals[k + 1] += ny; normals[k + 2] += nz; }
  }
  return normals;
}

class Scene {
  constructor(canvas) {
    this.canvas = canvas;
    this.meshes = [];
    const gl = this.gl = canvas.getContext("webgl2", { antialias: true, alpha: true });
    if (!gl) {
      canvas.replaceWith(element("p", "This browser shows no 3D: it has no WebGL 2.", "nothing"));
      return;
    }
    this.program = this.compile();
    this.reset();
    this.listen();
    new ResizeObserver(() => this.draw()).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
  }

  compile() {
    const gl = this.gl, program = gl.createProgram();
    for (const [kind, source] of [[gl.VERTEX_SHADER, VERTEX_SHADER], [gl.FRAGMENT_SHADER, FRAGMENT_SHADER]]) {
      const shader = gl.createShader(kind);
      gl.shaderSource(shader, source);
      gl.compileShader(shader);
      gl.attachShader(program, shader);
    }
    ["position", "normal", "colour"].forEach((name, location) => gl.bindAttribLocation(program, location, name));
    gl.linkProgram(program);
    if (!gl.getProgramParameter(program, gl.LINK_STATUS)) throw new Error(gl.getProgramInfoLog(program));
    return program;
  }

  reset() { [this.yaw, this.pitch, this.zoom] = [0.45, 0.08, 1]; }

  // meshes: {positions, faces, colour: [r, g, b] or one per vertex, alpha}. Keeps the camera; aims it at `frame`.
  show(meshes, frame) {
    const gl = this.gl;
    if (!gl) return;
    for (const mesh of this.meshes) {
      mesh.buffers.forEach((buffer) => gl.deleteBuffer(buffer));
      gl.deleteVertexArray(mesh.array);
    }
    this.meshes = meshes.map((mesh) => this.upload(mesh));
    this.aim(frame);
    this.draw();
  }

  upload({ positions, faces, colour, alpha = 1 }) {
    const gl = this.gl, array = gl.createVertexArray(), buffers = [];
    gl.bindVertexArray(array);
    let colours = colour;
    if (colour.length === 3) {
      colours = new Float32Array(positions.length);
      for (let i = 0; i < colours.length; i++) colours[i] = colour[i % 3];
    }
    [positions, vertexNormals(positions, faces), colours].forEach((values, location) => {
      const buffer = gl.createBuffer();
      gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
      gl.bufferData(gl.ARRAY_BUFFER, values, gl.STATIC_DRAW);
      gl.enableVertexAttribArray(location);
      gl.vertexAttribPointer(location, 3, gl.FLOAT, false, 0, 0);
      buffers.push(buffer);
    });
    const index = gl.createBuffer();
    gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, index);
    gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, faces, gl.STATIC_DRAW);
    return { array, buffers: [...buffers, index], count: faces.length, alpha };
  }

  // The centre of the points' bounding box, and half its diagonal.
  aim(positions) {
    const low = [Infinity, Infinity, Infinity], high = [-Infinity, -Infinity, -Infinity];
    for (let i = 0; i < positions.length; i++) {
      low[i % 3] = Math.min(low[i % 3], positions[i]);
      high[i % 3] = Math.max(high[i % 3], positions[i]);
    }
    this.centre = low.map((v, k) => (v + high[k]) / 2);
    this.extent = low.map((v, k) => (high[k] - v) / 2);
    this.radius = Math.hypot(...this.extent);
  }

  draw() {
    if (this.waiting || !this.gl) return;
    this.waiting = true;
    requestAnimationFrame(() => { this.waiting = false; this.render(); });
  }

  render() {
    const gl = this.gl, canvas = this.canvas, scale = Math.min(devicePixelRatio, 2);
    const width = Math.round(canvas.clientWidth * scale), height = Math.round(canvas.clientHeight * scale);
    if (!this.centre || !width || !height) return;
    if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
    gl.viewport(0, 0, width, height);
    gl.clearColor(0, 0, 0, 0);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    gl.useProgram(this.program);
    this.setCamera(width / height);
    gl.enable(gl.DEPTH_TEST);
    gl.depthFunc(gl.LEQUAL);
    gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
    for (const mesh of [...this.meshes].sort((a, b) => b.alpha - a.alpha)) {
      gl.uniform1f(gl.getUniformLocation(this.program, "alpha"), mesh.alpha);
      gl.bindVertexArray(mesh.array);
      if (mesh.alpha < 1) {  // depth first: only the nearest layer is blended
        gl.colorMask(false, false, false, false);
        gl.drawElements(gl.TRIANGLES, mesh.count, gl.UNSIGNED_SHORT, 0);
        gl.colorMask(true, true, true, true);
        gl.enable(gl.BLEND);
      } else gl.disable(gl.BLEND);
      gl.drawElements(gl.TRIANGLES, mesh.count, gl.UNSIGNED_SHORT, 0);
    }
  }

  setCamera(aspect) {
    const gl = this.gl, tangent = Math.tan(0.22);
    const [ca, sa, cb, sb] = [Math.cos(this.yaw), Math.sin(this.yaw), Math.cos(this.pitch), Math.sin(this.pitch)];
    // Far enough to see the whole body at any rotation about the vertical axis.
    const across = Math.hypot(this.extent[0], this.extent[2]), up = this.extent[1];
    const distance = 1.12 * (Math.max(up, across / aspect) / tangent + across) / this.zoom;
    const rows = [[ca, 0, -sa], [-sa * sb, cb, -ca * sb], [sa * cb, sb, ca * cb]];
    const shift = rows.map((row) => -row.reduce((sum, v, k) => sum + v * this.centre[k], 0));
    shift[2] -= distance;
    const view = [0, 1, 2].flatMap((k) => [rows[0][k], rows[1][k], rows[2][k], 0]).concat(shift, 1);
    const near = Math.max(distance - 2 * this.radius, 0.02), far = distance + 2 * this.radius;
    const projection = [
      1 / (aspect * tangent), 0, 0, 0, 0, 1 / tangent, 0, 0,
      0, 0, (far + near) / (near - far), -1, 0, 0, (2 * far * near) / (near - far), 0,
    ];
    gl.uniformMatrix4fv(gl.getUniformLocation(this.program, "view"), false, view);
    gl.uniformMatrix4fv(gl.getUniformLocation(this.program, "projection"), false, projection);
  }

  turn(dx, dy) {
    this.yaw -= dx;
    this.pitch = Math.max(-1.5, Math.min(1.5, this.pitch + dy));
    this.draw();
  }

  nearer(factor) {
    this.zoom = Math.max(0.5, Math.min(12, this.zoom * factor));
    this.draw();
  }

  listen() {
    const canvas = this.canvas, pointers = new Map();
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      pointers.set(event.pointerId, event);
    });
    canvas.addEventListener("pointermove", (event) => {
      const before = pointers.get(event.pointerId);
      if (!before) return;
      const span = () => { const [a, b] = [...pointers.values()]; return Math.hypot(a.clientX - b.clientX, a.clientY - b.clientY); };
      const previousSpan = pointers.size === 2 ? span() : 0;
      pointers.set(event.pointerId, event);
      if (pointers.size === 2) this.nearer(span() / Math.max(previousSpan, 1));
      else this.turn((event.clientX - before.clientX) / 110, (event.clientY - before.clientY) / 110);
    });
    for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, (event) => pointers.delete(event.pointerId));
    // The wheel zooms only after a click on the canvas; else it scrolls the page.
    canvas.addEventListener("wheel", (event) => {
      if (document.activeElement !== canvas) return;
      event.preventDefault();
      this.nearer(Math.exp(-event.deltaY / 600));
    }, { passive: false });
    canvas.addEventListener("dblclick", () => { this.reset(); this.draw(); });
    const keys = { ArrowLeft: [-0.15, 0], ArrowRight: [0.15, 0], ArrowUp: [0, -0.15], ArrowDown: [0, 0.15] };
    canvas.addEventListener("keydown", (event) => {
      if (event.key === "+" || event.key === "-") this.nearer(event.key === "+" ? 1.2 : 1 / 1.2);
      else if (keys[event.key]) this.turn(...keys[event.key]);
      else return;
      event.preventDefault();
    });
  }
}
