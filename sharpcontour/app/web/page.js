"use strict";
/* The page holds the outlines; the server keeps the photograph, refines, and reads and writes files (page_work.py).
   canvas.js shows them, controls.js has keys and buttons. Coordinates are pixels of the photograph unless called
   "screen", CSS pixels of the canvas. A ring is a flat list x0, y0, x1, y1, ...; objects are never changed but
   replaced, so an old list of them is all that undoing needs. */

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
