"use strict";
/* The page holds the outlines; the server keeps the photograph, refines, and reads and writes files (page_work.py).
   canvas.js shows them. Coordinates are pixels of the photograph unless called "screen", CSS pixels of the canvas. A
   ring is a flat list x0, y0, x1, y1, ...; objects are never changed but replaced, so an old list of them is all that
   undoing needs. */

let about = {bytes: Infinity, palette: [[56, 140, 242]]}; // what the server says of itself
let photo = null; // {id, name, width, height, image, file}
let objects = [], past = [], future = [], saved = objects;
let chosen = -1, vertex = null; // the chosen object, and [ring, vertex] of its rings
let outline = [], pending = []; // points [x, y] being drawn; rings being refined
let tool = "draw", before = false, counted = 0;
let cursor = null; // the keyboard's crosshair

// --- The server

async function ask(path, query = {}, body = undefined) {
  const sent = body === undefined ? {} : {method: "POST", body: body instanceof Blob ? body : JSON.stringify(body)};
  const answer = await fetch(`${path}?${new URLSearchParams(query)}`, sent).catch(() => {
    throw new Error("The server does not answer: is “sharpcontour page” still running?");
  });
  if (answer.ok) return answer;
  throw Object.assign(new Error((await answer.json()).error), {status: answer.status});
}

// Ask about the photograph; send it again where the server has not kept it.
async function askOfPhoto(path, query, body) {
  const mine = photo;
  try {
    return await ask(path, {id: mine.id, ...query}, body);
  } catch (error) {
    if (error.status !== 410) throw error;
    const again = await (await ask("photograph", {name: mine.name}, mine.file)).json();
    if (again.width !== mine.width) throw error; // masks had turned it
    mine.id = again.id;
    return ask(path, {id: mine.id, ...query}, body);
  }
}

async function attempt(doing, work) {
  say(doing);
  try { await work(); } catch (error) { say(error.message, true); }
}

function say(text, bad = false) {
  $("status").textContent = text;
  $("status").className = bad ? "bad" : "";
}

function checkBytes(file) {
  if (file.size > about.bytes) throw new Error(`${file.name}: more than ${about.bytes >> 20} MiB; make the file smaller`);
}

const openPhoto = (file) => attempt(`Reading ${file.name}…`, async () => {
  checkBytes(file);
  if (objects !== saved && objects.length && !confirm("Leave these outlines? They are not downloaded.")) return say("");
  await show(await (await ask("photograph", {name: file.name}, file)).json(), file);
  [objects, past, future, outline, pending, counted] = [[], [], [], [], [], 0];
  saved = objects;
  choose(-1);
  say(`${file.name}, ${photo.width} x ${photo.height} pixels. Draw roughly around an object.`);
});

async function show(told, file) {
  const image = new Image();
  image.src = `photograph?${new URLSearchParams({id: told.id})}`;
  await image.decode();
  photo = {...told, image, file};
  $("welcome").hidden = true;
  $("tools").hidden = $("choose-masks").disabled = false;
  fit();
}

async function openMasks(files) {
  for (const file of files) {
    await attempt(`Refining ${file.name}…`, async () => {
      checkBytes(file);
      const mine = photo, began = performance.now();
      const answer = await askOfPhoto("masks", {name: file.name, alone: objects.length ? 0 : 1}, file);
      const told = await answer.json();
      if (photo !== mine) return;
      if (told.photograph && objects.length) throw new Error(`${file.name}: fits only without other objects`);
      if (told.photograph) await show(told.photograph, photo.file);
      commit([...objects, ...told.objects], objects.length);
      say(`${told.notes.join("; ")}; refined in ${seconds(began)}`);
    });
  }
}

async function refineOutline(points) {
  const mine = photo, began = performance.now(), ring = points.flat();
  const fields = {name: `object ${++counted}`, category: null, category_id: null, score: null, crowd: false};
  pending = [...pending, ring];
  paint();
  await attempt(about.ready ? "Refining…" : "Loading the refiner…", async () => {
    try {
      const [object] = await (await askOfPhoto("refine", {}, [{...fields, rings: [ring]}])).json();
      if (photo !== mine) return;
      startSnap(object);
      commit([...objects, object], objects.length);
      say(`${object.name} refined in ${seconds(began)}: ${object.change}`);
    } catch (error) {
      if (photo === mine && !outline.length) outline = points; // Enter tries again
      throw error;
    } finally {
      pending = pending.filter((other) => other !== ring);
      paint();
    }
  });
}

const refineAgain = () => objects[chosen] && attempt("Refining…", async () => {
  const object = objects[chosen], began = performance.now();
  const [fresh] = await (await askOfPhoto("refine", {}, [toSend(object)])).json();
  if (!objects.includes(object)) return;
  commit(objects.map((other) => (other === object ? {...fresh, before: object.before} : other)));
  say(`${object.name} refined again in ${seconds(began)}: ${fresh.change}`);
});

const download = (kind) => attempt("Writing…", async () => {
  const written = objects;
  const answer = await askOfPhoto("download", {kind}, written.map(toSend));
  const link = document.createElement("a");
  link.download = decodeURIComponent(answer.headers.get("Content-Disposition").split("''")[1]);
  link.href = URL.createObjectURL(await answer.blob());
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  saved = written;
  say(`${link.download}: ${written.length} object${written.length === 1 ? "" : "s"}`);
});

function toSend({before, after, change, ...fields}) {
  return {...fields, rings: after};
}

const seconds = (began) => `${((performance.now() - began) / 1000).toFixed(2)} s`;

// --- Objects and their history

function commit(next, choice = chosen, previous = objects) {
  past.push(previous);
  [future, objects] = [[], next];
  choose(choice);
}

function travel(from, to) {
  if (!from.length) return;
  to.push(objects);
  objects = from.pop();
  choose(chosen);
}

const undo = () => (outline.length ? (outline.pop(), paint()) : travel(past, future));

function choose(k) {
  [chosen, vertex] = [Math.min(k, objects.length - 1), null];
  refresh();
}

function refresh() {
  const list = $("objects");
  while (list.children.length > objects.length) list.lastChild.remove();
  while (list.children.length < objects.length) list.append(newRow(list.children.length));
  objects.forEach((object, k) => {
    const row = list.children[k];
    row.className = k === chosen ? "chosen" : "";
    row.querySelector(".swatch").style.color = colour(k);
    row.querySelector(".swatch").setAttribute("aria-label", `Choose ${object.name}`);
    row.querySelector("input").value = object.name;
    row.querySelector("small").textContent = object.change;
  });
  list.children[chosen]?.scrollIntoView({block: "nearest", inline: "nearest"});
  $("none").hidden = !photo || objects.length > 0;
  for (const button of document.querySelectorAll("[data-download], #before")) button.disabled = !objects.length;
  $("again").disabled = chosen < 0;
  $("undo").disabled = !past.length;
  $("redo").disabled = !future.length;
  paint();
}

function newRow(k) {
  const row = $("row").content.firstElementChild.cloneNode(true);
  row.onclick = () => chosen !== k && choose(k);
  row.querySelector("input").onchange = ({target}) => {
    const name = target.value.trim() || objects[k].name;
    const named = {...objects[k], name, category: name, category_id: null};
    commit(objects.map((other, place) => (place === k ? named : other)), k);
  };
  row.querySelector(".remove").onclick = (event) => {
    event.stopPropagation();
    remove(k);
  };
  return row;
}

const remove = (k) => commit(objects.filter((_, place) => place !== k), k);

// Replace some numbers of a ring of the chosen object, and choose another vertex of it.
function spliced(at, count, ...values) {
  const [ring, place] = at, object = objects[chosen];
  const after = object.after.map((other, k) => (k === ring ? other.toSpliced(2 * place, count, ...values) : other));
  return objects.map((other) => (other === object ? {...object, after} : other));
}

function removeChosen() {
  if (!vertex) return objects[chosen] && remove(chosen);
  if (objects[chosen].after[vertex[0]].length <= 6) return say("An outline has three vertices at least.", true);
  commit(spliced(vertex, 2));
}

// --- Drawing an outline

function closeOutline() {
  const points = untangled(outline);
  outline = [];
  let area = 0;
  points.forEach(([x, y], k) => { const [u, v] = points.at(k - 1); area += (u * y - x * v) / 2; });
  paint();
  if (points.length < 3 || Math.abs(area) < 16) return say("That is too small for an outline: go around the object.", true);
  refineOutline(points);
}

// Where a free-hand outline runs past its beginning, cut both ends at their crossing.
function untangled(points) {
  const quarter = Math.floor(points.length / 4);
  const side = (a, b, c) => Math.sign((b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0]));
  for (let i = 0; i < quarter; i++) {
    for (let j = points.length - 2; j > points.length - 2 - quarter; j--) {
      const [a, b, c, d] = [points[i], points[i + 1], points[j], points[j + 1]];
      if (side(a, b, c) !== side(a, b, d) && side(c, d, a) !== side(c, d, b)) return points.slice(i + 1, j + 1);
    }
  }
  return points;
}

const isAtFirst = (place, near) => outline.length >= 3 && distance(toScreen(...outline[0]), place) <= near;

// --- Keys

const KEYS = {
  d: () => pick("draw"), e: () => pick("edit"), b: () => showBefore(true), r: refineAgain,
  "[": () => objects.length && choose((Math.max(chosen, 0) + objects.length - 1) % objects.length),
  "]": () => objects.length && choose((chosen + 1) % objects.length),
  "+": () => zoom(1.25), "=": () => zoom(1.25), "-": () => zoom(0.8), 0: fit, Delete: removeChosen,
  Escape: () => { [outline, cursor] = [[], null]; paint(); },
};
const CANVAS_KEYS = { // where nothing else has the focus that needs them
  ArrowLeft: (event) => arrow(event, -1, 0), ArrowRight: (event) => arrow(event, 1, 0),
  ArrowUp: (event) => arrow(event, 0, -1), ArrowDown: (event) => arrow(event, 0, 1),
  " ": () => { if (cursor && tool === "draw") outline.push(cursor); paint(); },
  Enter: () => outline.length && closeOutline(), Backspace: () => { outline.pop(); paint(); },
  ",": () => stepVertex(-1), ".": () => stepVertex(1),
};

document.onkeydown = (event) => {
  if (event.target.matches("input") || $("help").open) return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (key === "?") return $("help").showModal();
  if (!photo || event.altKey) return;
  const command = event.ctrlKey || event.metaKey;
  if (command && key === "z") event.shiftKey ? travel(future, past) : undo();
  else if (command && key === "y") travel(future, past);
  else if (command) return;
  else if (KEYS[key]) KEYS[key]();
  else if (CANVAS_KEYS[key] && (event.target === canvas || event.target === document.body)) CANVAS_KEYS[key](event);
  else return;
  event.preventDefault();
};
document.onkeyup = (event) => event.key.toLowerCase() === "b" && !event.target.matches("input") && showBefore(false);

function arrow({shiftKey}, dx, dy) {
  const ring = vertex && objects[chosen].after[vertex[0]];
  if (tool === "edit" && !ring) return move(-40 * dx, -40 * dy);
  const step = ring ? (shiftKey ? 10 : 1) : (shiftKey ? 1 : 10) / view.scale;
  const center = () => toPhoto([canvas.clientWidth / 2, canvas.clientHeight / 2]);
  const [x, y] = ring ? ring.slice(2 * vertex[1], 2 * vertex[1] + 2) : cursor ?? center();
  const place = inside(x + dx * step, y + dy * step), at = vertex;
  if (ring) commit(spliced(vertex, 2, ...place));
  else cursor = place;
  vertex = at;
  reveal(place);
}

function stepVertex(by) {
  if (tool !== "edit" || !objects[chosen]?.after.length) return;
  const all = objects[chosen].after.flatMap((ring, r) => Array.from({length: ring.length / 2}, (_, k) => [r, k]));
  const place = vertex ? all.findIndex(([r, k]) => r === vertex[0] && k === vertex[1]) : -Math.min(by, 0);
  vertex = all[(place + by + all.length) % all.length];
  reveal(objects[chosen].after[vertex[0]].slice(2 * vertex[1], 2 * vertex[1] + 2));
}

function reveal(point) {
  const [x, y] = toScreen(...point), [w, h] = [canvas.clientWidth, canvas.clientHeight - 80];
  move(x < 0 ? 40 - x : x > w ? w - 40 - x : 0, y < 0 ? 40 - y : y > h ? h - 40 - y : 0);
}

// --- Buttons, dropped files, and the beginning

function pick(name) {
  [tool, outline, vertex, cursor] = [name, [], null, null];
  for (const button of document.querySelectorAll("[data-tool]")) {
    button.setAttribute("aria-pressed", button.dataset.tool === name);
  }
  canvas.style.cursor = name === "draw" ? "crosshair" : "default";
  canvas.focus(); // for the keys that work there
  paint();
}

function showBefore(on) {
  before = on && objects.length > 0;
  $("before").setAttribute("aria-pressed", before);
  paint();
}

function fileButton(buttons, input, open) {
  for (const button of buttons) $(button).onclick = () => $(input).click();
  $(input).onchange = () => {
    const files = [...$(input).files];
    $(input).value = ""; // the same file may be chosen again
    if (files.length) open(files);
  };
}

function dragged(event) {
  event.preventDefault();
  $("zones").hidden = false;
  $("zones").querySelector("[data-zone=masks]").hidden = !photo;
  for (const zone of $("zones").children) zone.classList.toggle("over", zone === event.target);
}

function dropped(event) {
  event.preventDefault();
  $("zones").hidden = true;
  const files = [...event.dataTransfer.files];
  if (!files.length) return;
  if (event.target.dataset?.zone === "masks") openMasks(files);
  else if (files.length > 1) say("Drop one photograph, and its masks after it.", true);
  else openPhoto(files[0]);
}

fileButton(["choose-photo", "welcome-choose"], "photo-file", ([file]) => openPhoto(file));
fileButton(["choose-masks"], "masks-file", openMasks);
for (const button of document.querySelectorAll("[data-tool]")) button.onclick = () => pick(button.dataset.tool);
for (const button of document.querySelectorAll("[data-download]")) button.onclick = () => download(button.dataset.download);
for (const [id, action] of Object.entries({
  before: () => showBefore(!before), again: refineAgain, undo,
  redo: () => travel(future, past), smaller: () => zoom(0.8), larger: () => zoom(1.25), fit,
  keys: () => $("help").showModal(),
})) $(id).onclick = action;
document.ondragenter = document.ondragover = dragged;
document.ondragleave = (event) => { if (!event.relatedTarget) $("zones").hidden = true; };
document.ondrop = dropped;
window.onbeforeunload = (event) => { if (objects !== saved && objects.length) event.preventDefault(); };
new ResizeObserver(() => {
  [canvas.width, canvas.height] = [canvas.clientWidth, canvas.clientHeight].map((side) => side * devicePixelRatio);
  if (photo && !view.own) fit();
  else draw();
}).observe(canvas);

(async function wait() {
  about = await (await ask("about")).json();
  if (!about.ready) setTimeout(wait, 300);
  else if ($("status").textContent.startsWith("Loading")) say("Ready.");
})().catch((error) => say(error.message, true));
