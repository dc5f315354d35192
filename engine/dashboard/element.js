// An element is made and changed here, always through text and properties, so that no data is ever read as markup.

const SVG = "http://www.w3.org/2000/svg";

// Makes an HTML element: `properties` are DOM properties, `data` and `aria` go to attributes of that prefix.
export function element(tag, { data, aria, ...properties } = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  for (const [name, value] of Object.entries(data ?? {})) node.dataset[name] = value;
  for (const [name, value] of Object.entries(aria ?? {})) node.setAttribute(`aria-${name}`, value);
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

export function drawn(tag, attributes = {}, ...children) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

// Writes only what differs: an untouched text node costs the browser no layout.
export function write(node, text) {
  const wanted = String(text);
  if (node.textContent !== wanted) node.textContent = wanted;
}

export function show(node, visible) {
  if (node.hidden === visible) node.hidden = !visible;
}

// Brings the children of `parent` into the order of `nodes` and removes others, moving as few as it can.
export function arrange(parent, nodes) {
  const wanted = new Set(nodes);
  for (const child of [...parent.children]) if (!wanted.has(child)) child.remove();
  let next = parent.firstElementChild;
  for (const node of nodes) {
    if (node === next) next = next.nextElementSibling;
    else parent.insertBefore(node, next);
  }
}

// Someone works with the keyboard in here: moving things now would take them from under the fingers.
export function holdsFocus(node) {
  const active = document.activeElement;
  return active !== null && active !== node && node.contains(active) && active.matches(":focus-visible");
}

const SHAPES = {
  critical: "M5.2 1h5.6L15 5.2v5.6L10.8 15H5.2L1 10.8V5.2zM8 4.2v4.4M8 11v.9",
  warning: "M8 1.6 15 14.2H1zM8 6v4M8 11.6v.9",
  info: "M8 1a7 7 0 1 1 0 14A7 7 0 0 1 8 1zM8 7.2v4.6M8 4.2v.9",
  done: "M8 1a7 7 0 1 1 0 14A7 7 0 0 1 8 1zM4.8 8.2l2.3 2.3 4.2-4.6",
  seat: "M4 1.5v7h7.5V14M4 8.5V14M4 11.2h7.5",
  close: "M3 3l10 10M13 3 3 13",
};

export function icon(name) {
  const path = drawn("path", { d: SHAPES[name], fill: "none", stroke: "currentColor", "stroke-width": 1.6, "stroke-linejoin": "round", "stroke-linecap": "round" });
  return drawn("svg", { viewBox: "0 0 16 16", class: `icon icon-${name}`, "aria-hidden": "true" }, path);
}

// How busy a zone is, as one to three filled bars: read without its colour.
export function levelMark(level) {
  const svg = drawn("svg", { viewBox: "0 0 16 16", class: "icon level-mark", "aria-hidden": "true" });
  for (let bar = 0; bar < 3; bar += 1) {
    const height = 5 + bar * 4;
    svg.append(drawn("rect", {
      x: 1.5 + bar * 4.8, y: 14.5 - height, width: 3.4, height, rx: 1,
      fill: bar < level ? "currentColor" : "none", stroke: "currentColor", "stroke-width": 1,
    }));
  }
  return svg;
}
