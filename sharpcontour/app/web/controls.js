"use strict";
/* Keys, buttons, dropped files, and the beginning: what calls page.js and canvas.js. */

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
