"use strict";
const $ = (id) => document.getElementById(id);
const page = JSON.parse($("page").textContent);
const form = $("form"), fields = form.elements, cards = $("cards"), dialog = $("dialog");
const objects = page.images.flatMap((image) => image.objects);
const classes = [...new Set(objects.map((object) => object.class))].sort();
const scored = objects.some((object) => object.score !== 1);
let shown = [], made = 0, open = -1, view = null;  // items that the choices leave, cards made, the item that is enlarged

const number = (count, what) => `${count.toLocaleString("en")} ${what}${count === 1 ? "" : "s"}`;
const percent = (share) => (share > 0 && share < 0.001 ? "< 0.1" : (100 * share).toFixed(1)) + " %";
const greatest = (values) => values.reduce((most, value) => Math.max(most, value), 0);

function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

function drawing(name, attributes, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

// --- Pictures: a photograph, the contours before and after over it, and the divider ---

function addressOf(image) {
  if (!image.address) {
    const text = $("jpeg" + image.index);
    const bytes = Uint8Array.from(atob(text.textContent), (character) => character.charCodeAt(0));
    image.address = URL.createObjectURL(new Blob([bytes], {type: "image/jpeg"}));
    text.remove();
  }
  return image.address;
}

function contours(objects, which) {  // coordinates are tenths of a pixel
  const paths = objects.flatMap((object) => {
    const d = which === "before" ? object.before ?? object.after : object.after;
    const title = drawing("title", {}, factsOf(object));
    return [drawing("path", {d, class: "under"}), drawing("path", {d, class: "line"}, title)];
  });
  return drawing("g", {transform: "scale(.1)"}, ...paths);
}

function stage(item, box) {
  const image = item.image ?? item, inside = item.image ? [item] : item.kept;
  const size = {width: image.width, height: image.height, preserveAspectRatio: "none"};
  const viewBox = `${box.x} ${box.y} ${box.width} ${box.height}`;
  const layer = (name, content) => drawing("svg", {class: name, viewBox}, content);
  const both = page.refined && fields.at.value === "both";
  const made = element("div", {className: both ? "stage both" : "stage"});
  const move = (at) => made.style.setProperty("--at", `${at}%`);
  made.append(layer("photo", drawing("image", {href: addressOf(image), ...size})));
  move(page.refined ? item.at ?? fields.at.value : 0);
  if (page.refined) made.append(layer("before", contours(inside, "before")));
  made.append(layer("after", contours(inside, "after")));
  if (page.refined) {
    const divider = element("input", {type: "range", className: "divider", min: 0, max: 100, step: 0.5});
    divider.value = item.at ?? fields.at.value;
    divider.setAttribute("aria-label", `Divider of ${nameOf(item)}: ${page.before} on its left, ${page.after} on its right`);
    divider.oninput = () => move(item.at = divider.value);
    made.append(element("span", {className: "tag left", textContent: page.before}),
                element("span", {className: "tag right", textContent: page.after}),
                element("div", {className: "edge"}), divider);
  }
  return made;
}

function around([x0, y0, x1, y1], image) {  // a square with some margin, inside of the image where it fits
  const side = Math.max(1.25 * Math.max(x1 - x0, y1 - y0), 16);
  const begin = (middle, limit) =>
    side > limit ? (limit - side) / 2 : Math.min(Math.max(middle - side / 2, 0), limit - side);
  return {x: begin((x0 + x1) / 2, image.width), y: begin((y0 + y1) / 2, image.height), width: side, height: side};
}

const whole = (image) => ({x: 0, y: 0, width: image.width, height: image.height});
const homeOf = (item) => (item.image ? around(item.box, item.image) : whole(item));

// --- Words ---

function nameOf(item) {
  if (!item.image) return item.name;
  return item.class + (scored ? ` ${item.score.toFixed(2)}` : "");
}

const fileOf = (image) => image.name.split(/[\\/]/).at(-1);

function factsOf(item) {
  if (!item.image) {
    const most = greatest(item.kept.map((object) => object.change ?? 0));
    return number(item.kept.length, "object") + (most ? `, change up to ${percent(most)}` : "");
  }
  if (!page.refined) return nameOf(item);
  if (!item.change) return "no pixel changed";
  return `change ${percent(item.change)}` + (item.move ? `, move ${item.move} px` : "");
}

function sizeOf(image) {
  const scaled = image.scale < 1 ? `, in this page ${(100 * image.scale).toFixed(0)} % of that` : "";
  return `${image.width} x ${image.height} px${scaled}`;
}

// --- Choosing and sorting ---

function choose() {
  const value = {change: fields.change.value / 100, score: Number(fields.score.value), kind: fields.kind.value};
  fields.changeText.value = `${Number(fields.change.value).toFixed(1)} %`;
  fields.scoreText.value = value.score.toFixed(2);
  const fits = (object) => (object.change ?? 0) >= value.change && object.score >= value.score &&
    (value.kind === "" || object.class === classes[value.kind]);
  for (const image of page.images) image.kept = image.objects.filter(fits);
  const left = page.images.filter((image) => image.kept.length);
  const kept = left.flatMap((image) => image.kept);
  const key = fields.order.value, worth = (item) => (item.image ? item[key] : greatest(item.kept.map((o) => o[key])));
  shown = fields.view.value === "objects" ? kept : left;
  if (key === "place") shown.sort((a, b) => (a.image ?? a).place - (b.image ?? b).place);
  else shown.sort((a, b) => worth(b) - worth(a));
  $("shown").textContent = `Shown: ${kept.length} of ${number(objects.length, "object")} on ${number(left.length, "image")}`;
  cards.className = fields.view.value;
  near.disconnect();
  cards.replaceChildren();
  made = 0;
  more();
}

const near = new IntersectionObserver((entries) => {
  for (const {target, isIntersecting} of entries)
    target.replaceChildren(...(isIntersecting ? [stage(target.item, homeOf(target.item))] : []));
}, {rootMargin: "600px"});

const end = new IntersectionObserver((entries) => entries.some((entry) => entry.isIntersecting) && more(), {rootMargin: "1500px"});

function more() {
  const begin = made;
  made = Math.min(made + 60, shown.length);
  for (let k = begin; k < made; k++) cards.append(card(shown[k], k));
  $("more").textContent = shown.length ? "" : objects.length ? "No object is left: choose less strictly." : "There is no object on this page.";
  end.disconnect();
  if (made < shown.length) end.observe($("more"));
}

function card(item, k) {
  const box = homeOf(item), frame = element("div", {className: "frame", item});
  frame.style.aspectRatio = `${box.width} / ${box.height}`;
  near.observe(frame);
  const line = (className, textContent, title = textContent) => element("p", {className, textContent, title});
  const lines = [line("strong", item.image ? nameOf(item) : fileOf(item), nameOf(item))];
  if (page.refined || !item.image) lines.push(line("", factsOf(item)));
  lines.push(item.image ? line("grey", fileOf(item.image), item.image.name) : line("grey", sizeOf(item)));
  const zoom = element("button", {textContent: "Enlarge", onclick: () => enlarge(k)});
  zoom.setAttribute("aria-label", `Enlarge ${nameOf(item)}`);
  return element("article", {className: "card"}, frame, element("div", {}, ...lines, zoom));
}

// --- One picture enlarged ---

function enlarge(k) {
  open = k;
  const item = shown[k], image = item.image ?? item;
  if (!dialog.open) dialog.showModal();
  $("name").textContent = nameOf(item);
  $("facts").textContent = `${factsOf(item)}; ${item.image ? `${fileOf(image)}, ` : ""}${sizeOf(image)}`;
  for (const button of dialog.querySelectorAll("button")) {
    const what = button.dataset.do;
    button.hidden = (what === "object" && !item.image) || (what === "spot" && !item.spot);
    button.disabled = (what === "previous" && k === 0) || (what === "next" && k === shown.length - 1);
  }
  $("large").replaceChildren(stage(item, homeOf(item)));
  look(homeOf(item));
  $("large").querySelector(".divider")?.focus();
}

function look(box) {  // as much of the picture's width and height as the window has of both
  const {clientWidth: wide, clientHeight: high} = $("large");
  const scale = Math.min(wide / box.width, high / box.height);
  const width = wide / scale, height = high / scale;
  view = {x: box.x + (box.width - width) / 2, y: box.y + (box.height - height) / 2, width, height};
  for (const layer of $("large").querySelectorAll("svg"))
    layer.setAttribute("viewBox", `${view.x} ${view.y} ${view.width} ${view.height}`);
}

function zoom(factor, x = $("large").clientWidth / 2, y = $("large").clientHeight / 2) {  // about a place of the window
  const image = shown[open].image ?? shown[open];
  const width = Math.min(Math.max(view.width / factor, 4), 4 * Math.max(image.width, image.height));
  const by = width / view.width;
  const px = view.x + x / $("large").clientWidth * view.width, py = view.y + y / $("large").clientHeight * view.height;
  look({x: px - (px - view.x) * by, y: py - (py - view.y) * by, width, height: view.height * by});
}

const actions = {
  previous: () => open > 0 && enlarge(open - 1),
  next: () => open < shown.length - 1 && enlarge(open + 1),
  object: () => look(homeOf(shown[open])),
  spot: () => look({x: shown[open].spot[0], y: shown[open].spot[1], width: shown[open].spot[2], height: shown[open].spot[2]}),
  image: () => look(whole(shown[open].image ?? shown[open])),
  in: () => zoom(1.5),
  out: () => zoom(1 / 1.5),
  close: () => dialog.close(),
};
dialog.onclick = (event) => actions[event.target.dataset.do]?.();
dialog.onkeydown = (event) => {
  const action = {"+": "in", "=": "in", "-": "out", n: "next", p: "previous"}[event.key];
  if (action && !event.ctrlKey && !event.metaKey) actions[action]();
};
dialog.onclose = () => $("large").replaceChildren();
addEventListener("resize", () => dialog.open && look(view));

const fingers = new Map();
const middle = () => {
  const places = [...fingers.values()], [a, b] = [places[0], places.at(-1)];
  return {x: (a.x + b.x) / 2, y: (a.y + b.y) / 2, apart: Math.hypot(a.x - b.x, a.y - b.y)};
};
const place = (event) => {
  const area = $("large").getBoundingClientRect();
  return {x: event.clientX - area.x, y: event.clientY - area.y};
};
$("large").onpointerdown = (event) => {
  if (event.target.className === "divider") return;
  fingers.set(event.pointerId, place(event));
  $("large").setPointerCapture(event.pointerId);
};
$("large").onpointermove = (event) => {
  if (!fingers.has(event.pointerId)) return;
  const before = middle();
  fingers.set(event.pointerId, place(event));
  const after = middle(), unit = view.width / $("large").clientWidth;
  look({...view, x: view.x - (after.x - before.x) * unit, y: view.y - (after.y - before.y) * unit});
  if (before.apart && after.apart) zoom(after.apart / before.apart, after.x, after.y);
};
$("large").onpointerup = $("large").onpointercancel = (event) => fingers.delete(event.pointerId);
$("large").addEventListener("wheel", (event) => {
  event.preventDefault();
  const {x, y} = place(event);
  zoom(Math.exp(-event.deltaY / 400), x, y);
}, {passive: false});

// --- The beginning ---

page.images.forEach((image, index) => {
  image.index = index;
  for (const object of image.objects) object.image = image;
});
document.title = $("title").textContent = page.title;
const changed = objects.filter((object) => object.change).length;
$("counts").textContent = `${number(objects.length, "object")} on ${number(page.images.length, "image")}` +
  (page.refined ? `: ${changed} changed, ${objects.length - changed} without a changed pixel`
                : objects.length ? "; without a refiner there is no before" : "");
$("absent").hidden = !page.absent.length;
$("absent").open = page.absent.length <= 3;
$("absent").lastChild.append(...page.absent.map((textContent) => element("li", {textContent})));
if (!page.refined)
  for (const part of document.querySelectorAll(".refined")) part.tagName === "OPTION" ? part.remove() : (part.hidden = true);
$("scored").hidden = !scored;
const counts = new Map();
for (const object of objects) counts.set(object.class, (counts.get(object.class) ?? 0) + 1);
classes.forEach((name, k) => fields.kind.append(new Option(`${name} (${counts.get(name)})`, k)));
fields.change.max = Math.ceil(100 * greatest(objects.map((object) => object.change ?? 0)));
fields.score.max = greatest(objects.map((object) => object.score));
fields.score.min = -greatest(objects.map((object) => -object.score));
fields.score.value = objects.some((object) => object.score >= page.score) ? page.score : fields.score.min;
form.oninput = (event) => {
  if (event.target.name === "at") for (const item of [...objects, ...page.images]) delete item.at;
  choose();
};
$("all").onclick = () => {
  form.reset();
  fields.score.value = fields.score.min;
  choose();
};
form.onsubmit = (event) => event.preventDefault();
$("choices").open = innerWidth > 600;
choose();
