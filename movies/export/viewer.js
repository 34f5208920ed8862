"use strict";
// Plays the page's Gaussians with plain WebGL2. The picture is that of movies.rendering: the same projection, blur,
// thresholds and order; blocks of data are the inverse of html.py. Camera axes are OpenCV's, matrices row by row.
(() => {
const header = JSON.parse(document.getElementById("header").textContent);
const { numStatic, numMoving, times, columns, origin } = header;
const [firstTime, lastTime] = [times[0], times[times.length - 1]];
const SECONDS = Math.max(2, times.length / 6); // that a clip plays
const TEXTURE_WIDTH = 2048; // every WebGL2 has it
const canvas = document.getElementById("canvas");
const [slider, button, clock, message, legend] =
  ["slider", "play", "clock", "message", "legend"].map(id => document.getElementById(id));

const fail = reason => { message.textContent = `This scene cannot be shown: ${reason}`; };
addEventListener("error", e => fail(e.message));
addEventListener("unhandledrejection", e => fail(e.reason));
canvas.addEventListener("webglcontextlost", () => fail("its graphics memory was taken away; load the page again"));

// ---------------------------------------------------------------- shaders

const VERTEX = `#version 300 es
precision highp float; precision highp int; precision highp sampler2D; precision highp usampler2D;
layout(location = 0) in uint splat;
uniform usampler2D shapeStatic, shapeBefore, shapeAfter; // x | s0, y | s1, z | s2 (24 + 8 bits), rotation
uniform sampler2D colorStatic, colorBefore, colorAfter;  // red green blue opacity
uniform uint numStatic;
uniform float weight, unit, scaleLow, scaleStep, blur;
uniform vec3 origin, eye;
uniform mat3 toCamera;
uniform vec4 lens, limits; // fx fy cx cy in pixels; bounds of -x/z x/z -y/z y/z
uniform vec2 size;
out vec2 place;      // within the splat, in standard deviations
flat out vec4 color;

struct Splat { vec3 mean; vec4 quat; vec3 scale; vec4 color; };

vec4 rotation(uint word) { // three smallest of wxyz, the largest is what is left of length 1
  vec3 v = (vec3(uvec3(word >> 20, word >> 10, word) & 1023u) / 1023.0 * 2.0 - 1.0) * 0.70710678;
  float w = sqrt(max(0.0, 1.0 - dot(v, v)));
  uint largest = word >> 30;
  return largest == 0u ? vec4(w, v) : largest == 1u ? vec4(v.x, w, v.yz) : largest == 2u ? vec4(v.xy, w, v.z) : vec4(v, w);
}

Splat read(usampler2D shapes, sampler2D colors, uint i) {
  ivec2 at = ivec2(i % ${TEXTURE_WIDTH}u, i / ${TEXTURE_WIDTH}u);
  uvec4 s = texelFetch(shapes, at, 0);
  vec3 scale = exp(scaleLow + scaleStep * vec3(s.xyz >> 24));
  return Splat(origin + unit * vec3(s.xyz & 0xFFFFFFu), rotation(s.w), scale, texelFetch(colors, at, 0));
}

Splat current() { // as Scene4D.at
  if (splat < numStatic) return read(shapeStatic, colorStatic, splat);
  Splat a = read(shapeBefore, colorBefore, splat - numStatic), b = read(shapeAfter, colorAfter, splat - numStatic);
  vec4 q = dot(a.quat, b.quat) < 0.0 ? -b.quat : b.quat;
  return Splat(mix(a.mean, b.mean, weight), normalize(mix(a.quat, q, weight)), mix(a.scale, b.scale, weight),
               mix(a.color, b.color, weight));
}

mat3 matrix(vec4 q) { // wxyz; columns
  float w = q.x, x = q.y, y = q.z, z = q.w;
  return mat3(1.0 - 2.0 * (y * y + z * z), 2.0 * (x * y + w * z), 2.0 * (x * z - w * y),
              2.0 * (x * y - w * z), 1.0 - 2.0 * (x * x + z * z), 2.0 * (y * z + w * x),
              2.0 * (x * z + w * y), 2.0 * (y * z - w * x), 1.0 - 2.0 * (x * x + y * y));
}

void main() {
  gl_Position = vec4(0, 0, 2, 1); // outside: not drawn
  Splat s = current();
  vec3 p = toCamera * (s.mean - eye);
  if (p.z < 0.001 || p.z > 100.0 || s.color.a * 255.0 <= 1.0) return;
  mat3 m = toCamera * matrix(s.quat);
  m = mat3(m[0] * s.scale.x, m[1] * s.scale.y, m[2] * s.scale.z);
  vec2 t = clamp(p.xy / p.z, -limits.xz, limits.yw);
  vec3 rowX = vec3(m[0].x, m[1].x, m[2].x), rowY = vec3(m[0].y, m[1].y, m[2].y), rowZ = vec3(m[0].z, m[1].z, m[2].z);
  vec3 ax = lens.x / p.z * (rowX - t.x * rowZ), ay = lens.y / p.z * (rowY - t.y * rowZ); // Jacobian times m
  float xx = dot(ax, ax), yy = dot(ay, ay), xy = dot(ax, ay);
  vec3 n = cross(ax, ay);
  float det = dot(n, n) + blur * (xx + yy + blur);
  xx += blur; yy += blur;
  float along = 0.5 * (xx + yy) + length(vec2(0.5 * (xx - yy), xy)); // larger variance
  vec2 axis = xx >= yy ? vec2(along - yy, xy) : vec2(xy, along - xx);
  axis = dot(axis, axis) > 0.0 ? normalize(axis) : vec2(1, 0);
  vec2 corner = vec2(gl_VertexID & 1, gl_VertexID >> 1) * 2.0 - 1.0;
  place = corner * sqrt(2.0 * log(255.0 * s.color.a)); // where alpha falls to 1/255
  color = s.color;
  vec2 pixel = lens.xy * p.xy / p.z + lens.zw + axis * sqrt(along) * place.x + vec2(-axis.y, axis.x) * sqrt(det / along) * place.y;
  gl_Position = vec4((2.0 * pixel / size - 1.0) * vec2(1, -1), 0, 1);
}`;

const FRAGMENT = `#version 300 es
precision highp float;
in vec2 place;
flat in vec4 color;
out vec4 pixel;
void main() {
  float alpha = min(0.999, color.a * exp(-0.5 * dot(place, place)));
  if (alpha < 1.0 / 255.0) discard;
  pixel = vec4(color.rgb * alpha, alpha);
}`;

// ---------------------------------------------------------------- sorting, in a worker

// Counting sort by the bits of the depth as float32, which grow with it: 2^16 bins for every doubling.
function sorter() {
  const NEAR = 0.001, FAR = 100, SHIFT = 7, HIDDEN = 0xFFFFFFFF;
  const bitsOf = z => new Uint32Array(new Float32Array([z]).buffer)[0];
  const first = bitsOf(NEAR), counts = new Uint32Array(((bitsOf(FAR) - first) >>> SHIFT) + 2);
  const shapes = []; // static, then moving at each time; four words a Gaussian
  let numStatic, numMoving, depths, keys;

  function fill([rx, ry, rz, r], before, after, weight) {
    const s = shapes[0], a = shapes[before + 1], b = shapes[after + 1], mask = 0xFFFFFF, rest = 1 - weight;
    for (let i = 0, k = 0; i < numStatic; i++, k += 4) {
      depths[i] = rx * (s[k] & mask) + ry * (s[k + 1] & mask) + rz * (s[k + 2] & mask) + r;
    }
    for (let i = 0, k = 0; i < numMoving; i++, k += 4) {
      const da = rx * (a[k] & mask) + ry * (a[k + 1] & mask) + rz * (a[k + 2] & mask);
      const db = rx * (b[k] & mask) + ry * (b[k + 1] & mask) + rz * (b[k + 2] & mask);
      depths[numStatic + i] = rest * da + weight * db + r;
    }
  }

  function order() { // back to front; of equal ones the first is in front
    counts.fill(0);
    let shown = 0;
    for (let i = 0; i < depths.length; i++) {
      const seen = depths[i] >= NEAR && depths[i] <= FAR;
      keys[i] = seen ? (keys[i] - first) >>> SHIFT : HIDDEN; // keys were the depths' bits
      if (seen) { counts[keys[i]]++; shown++; }
    }
    for (let k = 0, sum = 0; k < counts.length; k++) { const c = counts[k]; counts[k] = sum; sum += c; }
    const sorted = new Uint32Array(shown);
    for (let i = 0; i < keys.length; i++) if (keys[i] !== HIDDEN) sorted[shown - 1 - counts[keys[i]]++] = i;
    return sorted;
  }

  onmessage = ({ data }) => {
    if (data.shape) { shapes.push(data.shape); return; }
    if (data.numStatic !== undefined) {
      ({ numStatic, numMoving } = data);
      depths = new Float32Array(numStatic + numMoving);
      return;
    }
    fill(data.row, data.before, data.after, data.weight);
    keys = new Uint32Array(depths.slice().buffer);
    const sorted = order();
    postMessage(sorted, [sorted.buffer]);
  };
}

// ---------------------------------------------------------------- data

async function inflate(text) {
  const letters = atob(text), bytes = new Uint8Array(letters.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = letters.charCodeAt(i);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

// Planes of differences to columns: along the column, or from the columns of the block before.
function decode(bytes, num, before) {
  let at = 0;
  return columns.map((size, c) => {
    const out = new Uint32Array(num), mask = size === 4 ? 0xFFFFFFFF : (1 << 8 * size) - 1;
    for (let plane = 0; plane < size; plane++, at += num) {
      for (let i = 0; i < num; i++) out[i] |= bytes[at + i] << 8 * plane;
    }
    for (let i = 0, last = 0; i < num; i++) last = out[i] = ((before ? before[c][i] : last) + out[i]) & mask;
    return out;
  });
}

function pack([x, y, z, s0, s1, s2, largest, qa, qb, qc, red, green, blue, opacity]) {
  const rows = Math.max(1, Math.ceil(x.length / TEXTURE_WIDTH)), room = rows * TEXTURE_WIDTH;
  const shape = new Uint32Array(4 * room), color = new Uint8Array(4 * room);
  for (let i = 0, k = 0; i < x.length; i++, k += 4) {
    shape[k] = x[i] | s0[i] << 24; shape[k + 1] = y[i] | s1[i] << 24; shape[k + 2] = z[i] | s2[i] << 24;
    shape[k + 3] = largest[i] << 30 | qa[i] << 20 | qb[i] << 10 | qc[i];
    color[k] = red[i]; color[k + 1] = green[i]; color[k + 2] = blue[i]; color[k + 3] = opacity[i];
  }
  return { shape, color, rows };
}

// ---------------------------------------------------------------- drawing

const gl = canvas.getContext("webgl2", { alpha: false, antialias: false, depth: false, preserveDrawingBuffer: true });
if (!gl || typeof DecompressionStream === "undefined") {
  message.textContent = "This browser is too old: WebGL2 and DecompressionStream are needed.";
  return;
}

function link() {
  const program = gl.createProgram();
  for (const [kind, source] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, source);
    gl.compileShader(shader);
    gl.attachShader(program, shader);
  }
  gl.linkProgram(program);
  if (!gl.getProgramParameter(program, gl.LINK_STATUS)) {
    throw new Error(gl.getAttachedShaders(program).map(s => gl.getShaderInfoLog(s)).join("\n"));
  }
  return program;
}

function texture(internal, format, type, rows, data) {
  const made = gl.createTexture();
  gl.bindTexture(gl.TEXTURE_2D, made);
  gl.texStorage2D(gl.TEXTURE_2D, 1, internal, TEXTURE_WIDTH, rows);
  gl.texSubImage2D(gl.TEXTURE_2D, 0, 0, 0, TEXTURE_WIDTH, rows, format, type, data);
  gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MIN_FILTER, gl.NEAREST);
  gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MAG_FILTER, gl.NEAREST);
  return made;
}

const program = link();
const uniforms = new Proxy({}, { get: (known, name) => known[name] ??= gl.getUniformLocation(program, name) });
const blocks = []; // textures: static, then moving at each time
const indices = gl.createBuffer();
let numShown = 0;

function start() {
  gl.useProgram(program);
  gl.bindBuffer(gl.ARRAY_BUFFER, indices);
  gl.enableVertexAttribArray(0);
  gl.vertexAttribIPointer(0, 1, gl.UNSIGNED_INT, 0, 0);
  gl.vertexAttribDivisor(0, 1);
  gl.enable(gl.BLEND);
  gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
  gl.clearColor(0, 0, 0, 1);
  const names = ["shapeStatic", "colorStatic", "shapeBefore", "colorBefore", "shapeAfter", "colorAfter"];
  names.forEach((name, unit) => gl.uniform1i(uniforms[name], unit));
  gl.uniform1ui(uniforms.numStatic, numStatic);
  gl.uniform3fv(uniforms.origin, origin);
  gl.uniform1f(uniforms.unit, header.step);
  gl.uniform1f(uniforms.scaleLow, header.scaleLow);
  gl.uniform1f(uniforms.scaleStep, header.scaleStep);
}

function bind(unit, block) {
  gl.activeTexture(gl.TEXTURE0 + unit);
  gl.bindTexture(gl.TEXTURE_2D, block.shape);
  gl.activeTexture(gl.TEXTURE0 + unit + 1);
  gl.bindTexture(gl.TEXTURE_2D, block.color);
}

function setLens() { // the first view's picture, as large as it fits and in the middle; at its own size exactly it
  const { width, height } = canvas, [fx, fy, cx, cy] = camera.fxfycxcy;
  const w = Math.min(width, height * header.aspect), h = w / header.aspect;
  const lens = [fx * w, fy * h, width / 2 + (cx - 0.5) * w, height / 2 + (cy - 0.5) * h];
  const margin = [0.15 * width / lens[0], 0.15 * height / lens[1]];
  gl.uniform4fv(uniforms.lens, lens);
  gl.uniform4f(uniforms.limits, lens[2] / lens[0] + margin[0], (width - lens[2]) / lens[0] + margin[0],
               lens[3] / lens[1] + margin[1], (height - lens[3]) / lens[1] + margin[1]);
  gl.uniform2f(uniforms.size, width, height);
  // The renderer widens splats by 0.3 square pixels. Pixels here are smaller than those that the splats were made
  // for, so it is 0.3 of theirs: else gaps open between the splats.
  gl.uniform1f(uniforms.blur, 0.3 * Math.max(1, w / (header.width || w)) ** 2);
}

function draw() {
  const m = camera.c2w, { before, after, weight } = interval();
  gl.viewport(0, 0, canvas.width, canvas.height);
  gl.clear(gl.COLOR_BUFFER_BIT);
  bind(0, blocks[0]);
  bind(2, blocks[before + 1]);
  bind(4, blocks[after + 1]);
  setLens();
  gl.uniform1f(uniforms.weight, weight);
  gl.uniform3f(uniforms.eye, m[3], m[7], m[11]);
  // the transpose of the camera's rotation, column by column, is the rotation row by row
  gl.uniformMatrix3fv(uniforms.toCamera, false, [m[0], m[1], m[2], m[4], m[5], m[6], m[8], m[9], m[10]]);
  gl.drawArraysInstanced(gl.TRIANGLE_STRIP, 0, 4, numShown);
}

// ---------------------------------------------------------------- state: time and camera

let time = firstTime, playing = false, stale = true, sorting = false, fixedSize = false, lastTick = 0;
let camera;

function interval() { // the stored times around `time`, and how far between them it is
  let after = times.findIndex(t => t >= time);
  if (after < 0) after = times.length - 1;
  const before = Math.max(0, after - 1), span = times[after] - times[before];
  return { before, after, weight: span > 0 ? Math.min(1, Math.max(0, (time - times[before]) / span)) : 1 };
}

function setTime(t) {
  time = Math.min(lastTime, Math.max(firstTime, t));
  slider.value = time;
  clock.textContent = time.toFixed(2);
  stale = true;
}

function setCamera(c2w, fxfycxcy = header.fxfycxcy, distance = header.distance) {
  camera = { c2w: Float64Array.from(c2w), fxfycxcy, distance };
  stale = true;
}

function setPlaying(on) {
  playing = on && times.length > 1;
  button.innerHTML = playing ? "&#10074;&#10074;" : "&#9654;";
}

const axis = k => [camera.c2w[k], camera.c2w[4 + k], camera.c2w[8 + k]]; // right, down, forward

function move(offset) {
  offset.forEach((d, k) => { camera.c2w[4 * k + 3] += d; });
  stale = true;
}

// Turn the camera about the point it looks at.
function orbit([x, y, z], angle) {
  const c = Math.cos(angle), s = Math.sin(angle), r = 1 - c;
  const turn = [[c + x * x * r, x * y * r - z * s, x * z * r + y * s],
                [y * x * r + z * s, c + y * y * r, y * z * r - x * s],
                [z * x * r - y * s, z * y * r + x * s, c + z * z * r]];
  move(axis(2).map(f => f * camera.distance));
  const old = camera.c2w.slice();
  for (let i = 0; i < 3; i++) for (let j = 0; j < 3; j++) {
    camera.c2w[4 * i + j] = turn[i].reduce((sum, t, k) => sum + t * old[4 * k + j], 0);
  }
  move(axis(2).map(f => -f * camera.distance));
}

function drag(dx, dy) { // pixels of the page; a drag over the page's height is half a turn
  const angle = Math.PI / innerHeight, m = header.c2w;
  orbit([m[1], m[5], m[9]], dx * angle); // the first view's down axis: the horizon stays level
  orbit(axis(0), -dy * angle);
}

function pan(dx, dy) {
  const step = camera.distance / (camera.fxfycxcy[1] * innerHeight), right = axis(0), down = axis(1);
  move(right.map((r, k) => -step * (dx * r + dy * down[k])));
}

function zoom(factor) {
  const distance = Math.max(1e-3, camera.distance * factor);
  move(axis(2).map(f => f * (camera.distance - distance)));
  camera.distance = distance;
}

function resize() {
  if (!fixedSize) {
    const shown = Math.min(innerWidth, innerHeight * header.aspect), enough = Math.max(512, 4 * header.width);
    const ratio = Math.min(devicePixelRatio || 1, 2, enough / shown); // more pixels would show nothing more
    canvas.width = Math.max(1, Math.round(innerWidth * ratio));
    canvas.height = Math.max(1, Math.round(innerHeight * ratio));
  }
  stale = true;
}

function setSize(width, height) {
  fixedSize = true;
  Object.assign(canvas, { width, height });
  Object.assign(canvas.style, { width: width + "px", height: height + "px" });
  resize();
}

// ---------------------------------------------------------------- hands

const pointers = new Map();

function spread() { // middle and distance of two fingers
  const [a, b] = [...pointers.values()];
  return { x: (a.x + b.x) / 2, y: (a.y + b.y) / 2, gap: Math.hypot(a.x - b.x, a.y - b.y) || 1 };
}

function moved(event) {
  const last = pointers.get(event.pointerId);
  if (!last) return;
  if (event.pointerType === "mouse" && !event.buttons) { // let go where the page could not see it
    pointers.delete(event.pointerId);
    return;
  }
  const now = { x: event.clientX, y: event.clientY };
  if (pointers.size === 2) {
    const was = spread();
    pointers.set(event.pointerId, now);
    const is = spread();
    pan(is.x - was.x, is.y - was.y);
    zoom(was.gap / is.gap);
    return;
  }
  pointers.set(event.pointerId, now);
  (event.buttons & 6 || event.shiftKey ? pan : drag)(now.x - last.x, now.y - last.y);
}

const KEYS = {
  " ": () => setPlaying(!playing),
  ArrowLeft: () => step(-1 / 48),
  ArrowRight: () => step(1 / 48),
  r: () => setCamera(header.c2w),
  h: () => { legend.hidden = !legend.hidden; },
};

function step(share) { // of the clip
  setPlaying(false);
  setTime(time + share * (lastTime - firstTime));
}

function wheeled(event) {
  event.preventDefault();
  const pixels = event.deltaY * (event.deltaMode ? 30 : 1); // some browsers count lines
  zoom(Math.exp(0.001 * pixels * (event.ctrlKey ? 10 : 1))); // a pinch on a touchpad comes as small turns with ctrl
}

function listen() {
  canvas.addEventListener("pointerdown", e => {
    canvas.setPointerCapture(e.pointerId);
    if (e.pointerType === "touch") legend.hidden = true; // read, and there is no key to hide it
    pointers.set(e.pointerId, { x: e.clientX, y: e.clientY });
  });
  canvas.addEventListener("pointermove", moved);
  for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, e => pointers.delete(e.pointerId));
  canvas.addEventListener("contextmenu", e => e.preventDefault());
  canvas.addEventListener("wheel", wheeled, { passive: false });
  addEventListener("resize", resize);
  addEventListener("keydown", e => {
    const action = KEYS[e.key.length === 1 ? e.key.toLowerCase() : e.key];
    if (action && !e.ctrlKey && !e.metaKey && !e.altKey) { e.preventDefault(); action(); }
  });
  button.addEventListener("click", () => { setPlaying(!playing); button.blur(); });
  slider.addEventListener("input", () => { setPlaying(false); setTime(Number(slider.value)); });
}

// ---------------------------------------------------------------- the loop

const worker = new Worker(URL.createObjectURL(new Blob([`(${sorter})()`], { type: "text/javascript" })));
const waiting = []; // the worker answers in the order it is asked
worker.onerror = e => fail(e.message);

worker.onmessage = ({ data }) => {
  gl.bufferData(gl.ARRAY_BUFFER, data, gl.STREAM_DRAW);
  numShown = data.length;
  waiting.shift()();
};

function sort() {
  const f = axis(2), m = camera.c2w, eye = [m[3], m[7], m[11]];
  const offset = f.reduce((sum, x, k) => sum + x * (origin[k] - eye[k]), 0);
  worker.postMessage({ row: [...f.map(x => x * header.step), offset], ...interval() });
  return new Promise(done => waiting.push(done));
}

async function renderNow() {
  stale = false; // the loop need not draw this state again
  await sort();
  draw();
  gl.finish();
}

function tick(now) {
  requestAnimationFrame(tick);
  if (playing) {
    const next = time + (now - lastTick) / 1000 * (lastTime - firstTime) / SECONDS;
    setTime(next > lastTime ? firstTime : next);
  }
  lastTick = now;
  if (!stale) return;
  draw(); // in the last order, until the new one is here
  if (sorting) return;
  stale = false;
  sorting = true;
  sort().then(() => { sorting = false; draw(); });
}

async function load() {
  const texts = [...document.querySelectorAll(".block")];
  worker.postMessage({ numStatic, numMoving });
  for (let k = 0, before = null; k < texts.length; k++) {
    message.textContent = `loading ${Math.round(100 * k / texts.length)} %`;
    const bytes = await inflate(texts[k].textContent);
    texts[k].remove(); // free the text
    const decoded = decode(bytes, k ? numMoving : numStatic, before);
    if (k) before = decoded;
    const { shape, color, rows } = pack(decoded);
    blocks.push({
      shape: texture(gl.RGBA32UI, gl.RGBA_INTEGER, gl.UNSIGNED_INT, rows, shape),
      color: texture(gl.RGBA8, gl.RGBA, gl.UNSIGNED_BYTE, rows, color),
    });
    worker.postMessage({ shape }, [shape.buffer]);
  }
  Object.assign(slider, { min: firstTime, max: lastTime, step: "any" });
  document.getElementById("bar").style.display = times.length > 1 ? "" : "none";
  setCamera(header.c2w);
  setTime(firstTime);
  start();
  resize();
  listen();
  await renderNow();
  message.textContent = "";
  requestAnimationFrame(tick);
}

// For programs and tests; renderNow resolves once the picture of the present state is on the canvas.
window.viewer = { setTime, setCamera, setSize, setPlaying, renderNow, times, ready: load() };
})();
