"use strict";
/* The canvas: where the photograph lies on the screen, what is painted, and mouse, pen and fingers on it. What it shows
   and changes is kept by page.js, which also tells the units. */
const $ = (id) => document.getElementById(id);
const canvas = $("canvas"), pen = canvas.getContext("2d");
const NEAR = {mouse: 9, pen: 14, touch: 24}; // screen px, from which a vertex is caught
const view = {scale: 1, x: 0, y: 0, own: false}; // screen = scale * place + (x, y); own: changed by the user
const pointers = new Map(); // those that are down, on the screen
let gesture = null, hover = null; // what the pointers do; where the mouse is on the screen

// --- The screen

const toScreen = (x, y) => [x * view.scale + view.x, y * view.scale + view.y];
const toPhoto = ([x, y]) => inside((x - view.x) / view.scale, (y - view.y) / view.scale);
const inside = (x, y) => [Math.min(Math.max(x, 0), photo.width), Math.min(Math.max(y, 0), photo.height)];
const distance = ([x, y], [u, v]) => Math.hypot(x - u, y - v);
const colour = (k, opacity = 1) => `rgb(${about.palette[k % about.palette.length].join(" ")} / ${opacity})`;

function fit() {
  const {width, height} = canvas.getBoundingClientRect();
  const bar = $("tools").offsetHeight + 24; // the tools lie on the lower end
  view.scale = Math.min((width - 24) / photo.width, (height - bar - 12) / photo.height);
  view.x = (width - photo.width * view.scale) / 2;
  view.y = (height - bar + 12 - photo.height * view.scale) / 2;
  view.own = false;
  paint();
}

function zoom(factor, place = [canvas.clientWidth / 2, canvas.clientHeight / 2]) {
  const scale = Math.min(Math.max(view.scale * factor, 0.02), 60);
  move(...place.map((value, k) => (value - [view.x, view.y][k]) * (1 - scale / view.scale)));
  view.scale = scale;
}

function move(dx, dy) {
  Object.assign(view, {x: view.x + dx, y: view.y + dy, own: true});
  paint();
}

let painting = 0;
function paint() {
  painting ||= requestAnimationFrame(() => { painting = 0; draw(); });
}

const paths = new WeakMap(); // rings are never changed
function pathOf(rings) {
  if (!paths.has(rings)) {
    const path = new Path2D();
    for (const ring of rings) {
      for (let k = 0; k < ring.length; k += 2) path.lineTo(ring[k], ring[k + 1]);
      path.closePath();
    }
    paths.set(rings, path);
  }
  return paths.get(rings);
}

function draw() {
  const ratio = canvas.width / canvas.clientWidth;
  pen.setTransform(1, 0, 0, 1, 0, 0);
  pen.clearRect(0, 0, canvas.width, canvas.height);
  if (!photo) return;
  pen.setTransform(view.scale * ratio, 0, 0, view.scale * ratio, view.x * ratio, view.y * ratio);
  pen.imageSmoothingEnabled = view.scale < 4;
  pen.imageSmoothingQuality = "high";
  pen.lineJoin = "round";
  pen.drawImage(photo.image, 0, 0);
  objects.forEach((object, k) => {
    const path = pathOf(before ? object.before : snapped(object) ?? object.after);
    pen.fillStyle = colour(k, k === chosen ? 0.18 : 0.12);
    pen.fill(path, "evenodd");
    stroke(path, k === chosen ? "#fff" : "#0009", 4);
    stroke(path, colour(k), 2, before ? [6, 4] : []);
  });
  for (const ring of pending) drawLine(pathOf([ring]), [6, 4]);
  if (outline.length) drawOutline();
  if (tool === "edit" && !before && objects[chosen]) drawVertices(objects[chosen].after);
  if (cursor) cross(cursor);
}

function stroke(path, style, width, dash = []) {
  pen.strokeStyle = style;
  pen.lineWidth = width / view.scale;
  pen.setLineDash(dash.map((length) => length / view.scale));
  pen.stroke(path);
}

function drawLine(path, dash = []) {
  stroke(path, "#000a", 4);
  stroke(path, "#fff", 2, dash);
}

function drawOutline() {
  const path = new Path2D();
  for (const point of outline) path.lineTo(...point);
  if (cursor) path.lineTo(...cursor);
  else if (hover && !gesture) path.lineTo(...toPhoto(hover));
  drawLine(path);
  dot(outline[0], 5, "#fff");
}

function drawVertices(rings) {
  rings.forEach((ring, r) => {
    let length = 0;
    for (let k = 2; k < ring.length; k += 2) length += Math.hypot(ring[k] - ring[k - 2], ring[k + 1] - ring[k - 1]);
    const apart = (length * view.scale * 2) / ring.length > 6; // closer ones are shown near the pointer only
    for (let k = 0; k < ring.length; k += 2) {
      const point = [ring[k], ring[k + 1]], own = vertex && vertex[0] === r && vertex[1] === k / 2;
      if (own) dot(point, 6, "#ffd23c");
      else if (apart || (hover && distance(toScreen(...point), hover) < 40)) dot(point, 3, "#fff");
    }
  });
}

function dot([x, y], radius, style) {
  const path = new Path2D();
  path.arc(x, y, radius / view.scale, 0, 7);
  stroke(path, "#000c", 2);
  pen.fillStyle = style;
  pen.fill(path);
}

function cross([x, y]) {
  const path = new Path2D(), arm = 12 / view.scale;
  for (const [u, v] of [[arm, 0], [0, arm]]) { path.moveTo(x - u, y - v); path.lineTo(x + u, y + v); }
  drawLine(path);
}

// --- Mouse, pen and fingers

const placeOf = ({clientX, clientY}) => {
  const {left, top} = canvas.getBoundingClientRect();
  return [clientX - left, clientY - top];
};

canvas.onpointerdown = (event) => {
  if (!photo) return;
  const place = placeOf(event), near = NEAR[event.pointerType] ?? NEAR.mouse;
  canvas.setPointerCapture(event.pointerId);
  pointers.set(event.pointerId, place);
  [hover, cursor] = [place, null];
  if (pointers.size > 1) {
    cancelGesture();
    gesture = {kind: "pinch"};
  } else if (event.button) gesture = {kind: "pan"};
  else if (tool === "edit") gesture = before ? {kind: "pan"} : startEdit(place, near);
  else if (isAtFirst(place, near)) closeOutline();
  else {
    gesture = {kind: "stroke", kept: outline.length, length: 0};
    outline.push(toPhoto(place));
  }
  paint();
};

function startEdit(place, near) {
  const at = nearestVertex(place, near);
  if (at) {
    vertex = at;
    return {kind: "vertex", objects};
  }
  pen.setTransform(1, 0, 0, 1, 0, 0);
  const point = toPhoto(place);
  const hit = objects.findLastIndex((object) => pen.isPointInPath(pathOf(object.after), ...point, "evenodd"));
  if (hit >= 0 && hit !== chosen) choose(hit);
  vertex = null;
  return {kind: "pan"};
}

function nearestVertex(place, near) {
  let found = null;
  objects[chosen]?.after.forEach((ring, r) => {
    for (let k = 0; k < ring.length; k += 2) {
      const far = distance(toScreen(ring[k], ring[k + 1]), place);
      if (far <= near) [near, found] = [far, [r, k / 2]];
    }
  });
  return found;
}

canvas.onpointermove = (event) => {
  const place = placeOf(event), last = pointers.get(event.pointerId);
  hover = place;
  paint();
  if (!last || !gesture) return;
  const old = [...pointers.values()];
  pointers.set(event.pointerId, place);
  if (gesture.kind === "pan") move(place[0] - last[0], place[1] - last[1]);
  else if (gesture.kind === "pinch") pinch(old, [...pointers.values()]);
  else if (gesture.kind === "vertex") objects = spliced(vertex, 2, ...toPhoto(place));
  else if (distance(toScreen(...outline.at(-1)), place) >= 3) {
    gesture.length += distance(toScreen(...outline.at(-1)), place);
    outline.push(toPhoto(place));
  }
};

function pinch([a, b], [c, d]) {
  if (!d) return;
  const middle = (p, q) => [(p[0] + q[0]) / 2, (p[1] + q[1]) / 2];
  const [from, to] = [middle(a, b), middle(c, d)];
  move(to[0] - from[0], to[1] - from[1]);
  zoom(distance(c, d) / Math.max(distance(a, b), 1), to);
}

canvas.onpointerup = (event) => {
  if (!pointers.delete(event.pointerId) || !gesture) return;
  const {kind, kept, length, objects: previous} = gesture;
  if (kind === "pinch" && pointers.size) return;
  gesture = null;
  if (kind === "stroke" && !kept && length > 12) closeOutline(); // free-hand; else it is a corner
  if (kind === "vertex" && objects !== previous) {
    const at = vertex;
    commit(objects, chosen, previous);
    vertex = at;
  }
};

canvas.onpointercancel = (event) => {
  pointers.delete(event.pointerId);
  cancelGesture();
};

function cancelGesture() {
  if (gesture?.kind === "stroke") outline.length = gesture.kept;
  if (gesture?.kind === "vertex") objects = gesture.objects;
  gesture = null;
}

canvas.onpointerleave = () => { hover = null; paint(); };
canvas.oncontextmenu = (event) => event.preventDefault();

canvas.ondblclick = () => {
  if (tool === "draw" && outline.length > 3) {
    outline.pop(); // the second click
    closeOutline();
  }
};

canvas.addEventListener("wheel", (event) => {
  event.preventDefault();
  if (photo) zoom(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : event.ctrlKey ? 0.01 : 0.0015)), placeOf(event));
}, {passive: false});

// --- The drawn outline moves to the refined one, which has its order and begins where it does

let snap = null;
function startSnap(object) {
  if (object.after.length !== 1 || matchMedia("(prefers-reduced-motion: reduce)").matches) return;
  snap = {object, from: spaced(object.before[0]), to: spaced(object.after[0]), began: performance.now()};
}

function spaced(ring, count = 200) {
  const points = [];
  for (let k = 0; k <= ring.length; k += 2) points.push([ring[k % ring.length], ring[(k + 1) % ring.length]]);
  const lengths = points.map((point, k) => (k ? distance(point, points[k - 1]) : 0));
  const step = lengths.reduce((sum, length) => sum + length) / count, found = [];
  for (let k = 1, sum = 0; k < points.length; sum += lengths[k++]) {
    while (found.length < 2 * count && (found.length / 2) * step <= sum + lengths[k]) {
      const part = ((found.length / 2) * step - sum) / (lengths[k] || 1);
      found.push(...[0, 1].map((axis) => points[k - 1][axis] + part * (points[k][axis] - points[k - 1][axis])));
    }
  }
  return found;
}

function snapped(object) {
  if (snap?.object !== object) return null;
  const part = (performance.now() - snap.began) / 280;
  if (part >= 1) return (snap = null);
  paint();
  return [snap.from.map((value, k) => value + (1 - (1 - part) ** 3) * (snap.to[k] - value))];
}
