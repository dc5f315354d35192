// The board of zones: a card each, under the floor it is part of or, fullest first, all in one grid.

import { arrange, drawn, element, holdsFocus, icon, levelMark, show, write } from "./element.js";
import { spark } from "./chart.js";
import { freeOf, LEVELS } from "./house.js";
import * as words from "./words.js";

// Cards change places at most this often in the fullest-first order: a card should stay where the eye found it.
const REORDER_MS = 3000;
const TREND_MS = 15 * 60000;
const CALM = window.matchMedia("(prefers-reduced-motion: reduce)");

export class Board {
  constructor(root, house, open) {
    this.root = root;
    this.house = house;
    this.open = open;
    this.cards = new Map();
    this.heads = new Map();
    this.dirty = new Set();
    this.sign = null;
    this.order = words.remembered("usher.order", "place");
    this.reordered = 0;
  }

  orderBy(order) {
    this.order = order;
    words.remember("usher.order", order);
    this.build();
  }

  // Builds everything anew where it has to: at the start, when zones come or go, and in another language or order.
  build() {
    const sign = JSON.stringify([this.order, words.spoken(), [...this.house.zones.values()].map(({ key, zone }) => [key, zone.parent, zone.name, zone.site_name])]);
    if (sign === this.sign) {
      this.everything();
      return;
    }
    this.sign = sign;
    const focused = [...this.cards].find(([, card]) => card.root.contains(document.activeElement))?.[0];
    this.cards.clear();
    this.heads.clear();
    this.dirty.clear();
    const floors = this.house.floors();
    if (this.order === "fullest") {
      this.grid = element("div", { className: "grid" });
      for (const floor of floors) for (const held of floor.leaves) this.addCard(held, this.floorName(floor, floors));
      this.root.replaceChildren(this.grid);
      this.reorder(true);
    } else {
      this.grid = null;
      this.root.replaceChildren(...floors.map((floor) => this.floor(floor, floors)));
    }
    this.everything();
    this.cards.get(focused)?.root.querySelector("button").focus({ preventScroll: true });
  }

  floorName(floor, floors) {
    const name = floor.id === null ? (floors.length > 1 ? words.say("other_areas") : "") : this.house.nameOf(floor.site, floor.id);
    return this.house.sites().length > 1 ? [this.house.siteName(floor.site), name].filter(Boolean).join(" · ") : name;
  }

  floor(floor, floors) {
    const name = this.floorName(floor, floors);
    const grid = element("div", { className: "grid" }, ...floor.leaves.map((held) => this.addCard(held, "")));
    if (!name) return grid;
    const persons = element("span", { data: { field: "persons" } });
    const rest = element("span", { className: "floor-rest" });
    const fill = element("span", { className: "bar-fill" });
    const bar = element("span", { className: "bar", aria: { hidden: "true" } }, fill);
    const head = element("div", { className: "floor-head", data: floor.id === null ? {} : { zone: floor.id, site: floor.site } },
      element("h3", { textContent: name }), element("p", {}, persons, " ", rest), bar);
    this.heads.set(floor.key, { persons, rest, fill, bar, parts: floor.leaves.map((held) => held.key) });
    return element("section", { className: "floor" }, head, grid);
  }

  addCard(held, floorName) {
    const card = new Card(held, floorName, this.open);
    this.cards.set(held.key, card);
    if (this.grid) this.grid.append(card.root);
    return card.root;
  }

  everything() {
    for (const key of this.cards.keys()) this.change(key);
    this.changeFloors();
    this.drawLines();
  }

  // Brings one zone's card up to date. Cheap enough for every frame; lines are drawn later.
  change(key) {
    const card = this.cards.get(key);
    const held = this.house.zones.get(key);
    if (!card || !held) return;
    card.change(held.zone, this.house.seatsOf(key));
    this.dirty.add(key);
  }

  changeFloors() {
    for (const [key, head] of this.heads) {
      const crowd = this.house.zones.has(key) ? this.house.crowd(key)
        : { persons: head.parts.reduce((all, part) => all + this.house.crowd(part).persons, 0), known: true };
      const capacity = this.house.capacity(key);
      write(head.persons, crowd.known ? Math.round(crowd.persons) : "–");
      const share = capacity ? crowd.persons / capacity : null;
      write(head.rest, capacity && crowd.known
        ? `${words.say("of", { capacity: words.number(capacity) })} · ${words.percent(share)}`
        : words.say("people", { n: Math.round(crowd.persons) }));
      show(head.bar, Boolean(capacity));
      fillBar(head.fill, share ?? 0);
    }
  }

  // Once a second: ages, courses and, in the fullest-first order, places.
  tick() {
    for (const card of this.cards.values()) card.age();
    this.drawLines();
    this.reorder(false);
  }

  drawLines() {
    for (const key of this.dirty) {
      const held = this.house.zones.get(key);
      if (held) this.cards.get(key)?.draw(held);
    }
    this.dirty.clear();
  }

  reorder(atOnce) {
    if (!this.grid || (!atOnce && (performance.now() - this.reordered < REORDER_MS || holdsFocus(this.grid) || this.grid.matches(":hover")))) return;
    this.reordered = performance.now();
    const fullness = ({ zone }) => (zone.as_of ? Math.round(100 * (zone.share ?? -0.01)) : -2);
    const held = this.house.leaves().filter(({ key }) => this.cards.has(key));
    held.sort((a, b) => fullness(b) - fullness(a) || (b.zone.persons ?? 0) - (a.zone.persons ?? 0) || words.compare(a.zone.zone, b.zone.zone));
    const nodes = held.map(({ key }) => this.cards.get(key).root);
    if (nodes.every((node, index) => this.grid.children[index] === node)) return;
    const before = atOnce || CALM.matches ? null : nodes.map((node) => node.getBoundingClientRect());
    arrange(this.grid, nodes);
    before?.forEach((box, index) => {
      const now = nodes[index].getBoundingClientRect();
      const move = `translate(${box.left - now.left}px, ${box.top - now.top}px)`;
      if (box.left !== now.left || box.top !== now.top) nodes[index].animate([{ transform: move }, { transform: "none" }], { duration: 450, easing: "ease-in-out" });
    });
  }
}

export function fillBar(fill, share) {
  const width = `${Math.round(1000 * Math.min(Math.max(share, 0), 1)) / 10}%`;
  if (fill.style.width !== width) fill.style.width = width;
}

// The words of how busy a zone is, with its mark.
export function levelOf(zone) {
  const level = zone.as_of ? zone.word ?? "unknown" : "unknown";
  return { level, bars: LEVELS[level] ?? 0, text: words.has(level) ? words.say(level) : level };
}

// The range of a count, as `key` words it, or nothing where it adds nothing.
function rangeOf(zone, key) {
  if (!Number.isFinite(zone.low) || !Number.isFinite(zone.high) || zone.low === zone.high) return "";
  return words.say(key, { low: words.number(zone.low), high: words.number(zone.high) });
}

class Card {
  constructor({ key, zone }, floorName, open) {
    this.persons = element("span", { className: "count", data: { field: "persons" } });
    this.of = element("span", { className: "of", data: { field: "capacity" } });
    this.trend = element("span", { className: "trend" });
    this.share = element("span", { className: "share", data: { field: "share" } });
    this.level = element("span", { className: "level", data: { field: "word" } });
    this.fill = element("span", { className: "bar-fill" });
    this.bar = element("span", { className: "bar", aria: { hidden: "true" } }, this.fill);
    this.line = drawn("svg", { class: "spark", "aria-hidden": "true" });
    this.range = element("span", { data: { field: "range" } });
    this.seats = element("span", { className: "seats-free", data: { field: "seats" } });
    this.when = element("span", { className: "when", data: { field: "as_of" } });
    this.mark = element("span", { className: "chip", data: { field: "stale" } });
    this.unlisted = element("span", { className: "chip chip-plain", textContent: words.say("unlisted") });
    const name = element("button", { type: "button", className: "card-name", textContent: words.nameOf(zone.name, zone.zone) });
    name.addEventListener("click", () => open(key));
    this.root = element("article", { className: "card", data: { zone: zone.zone, site: zone.site ?? "" } },
      element("header", {}, element("h4", {}, name, floorName ? element("small", { textContent: floorName }) : null), this.level),
      element("p", { className: "numbers" }, this.persons, " ", this.of, this.trend, this.share),
      this.bar, this.line,
      element("footer", {}, this.seats, this.range, this.mark, this.unlisted, this.when));
  }

  change(zone, seats) {
    this.asOf = zone.as_of;
    const { level, bars, text } = levelOf(zone);
    const known = Boolean(zone.as_of) && Number.isFinite(zone.persons);
    const persons = Math.round(zone.persons);
    write(this.persons, known ? persons : "–");
    const capacity = Number.isFinite(zone.capacity) ? zone.capacity : null;
    write(this.of, capacity === null ? words.say("people", { n: known ? persons : 0 }) : words.say("of", { capacity: words.number(capacity) }));
    const share = known ? zone.share ?? (capacity ? zone.persons / capacity : null) : null;
    write(this.share, share === null ? "" : words.percent(share));
    show(this.bar, capacity !== null);
    fillBar(this.fill, share ?? 0);
    if (this.root.dataset.level !== level) this.root.dataset.level = level;
    if (this.levelText !== text) {
      this.levelText = text;
      this.level.replaceChildren(levelMark(bars), text);
    }
    const range = known && !zone.stale && zone.known !== false;
    write(this.range, range ? rangeOf(zone, "near") : "");
    this.range.title = range ? rangeOf(zone, "likely") : "";
    const free = freeOf(seats);
    const seatsText = seats.length ? words.say("seats_free", { n: free }) : "";
    if (this.seatsText !== seatsText) {
      this.seatsText = seatsText;
      this.seats.replaceChildren(...(seatsText ? [icon("seat"), seatsText] : []));
    }
    const stale = Boolean(zone.stale) && known;
    this.root.classList.toggle("is-stale", stale);
    if (this.stale !== stale) {
      this.stale = stale;
      this.mark.replaceChildren(...(stale ? [icon("warning"), words.say("stale")] : []));
      show(this.mark, stale);
    }
    show(this.unlisted, zone.known === false);
    this.age();
  }

  age() {
    const text = this.asOf ? words.ago(this.asOf) : words.say("never");
    if (this.ageText === text) return;
    this.ageText = text;
    write(this.when, text);
    this.when.title = this.asOf ? words.day(this.asOf) : "";
  }

  draw({ zone, course }) {
    spark(this.line, course.all(), Math.max(4, (zone.capacity ?? 0) * 0.4));
    const then = zone.as_of ? course.at(Date.parse(zone.as_of) - TREND_MS) : null;
    const change = then === null ? 0 : Math.round(zone.persons - then);
    const key = change > 0 ? "trend_up" : "trend_down";
    write(this.trend, change === 0 ? "" : `${change > 0 ? "↗" : "↘"} ${words.number(Math.abs(change))}`);
    this.trend.title = change === 0 ? "" : words.say(key, { n: Math.abs(change) });
    if (change) this.trend.setAttribute("aria-label", this.trend.title);
    else this.trend.removeAttribute("aria-label");
    this.trend.setAttribute("role", "img");
  }
}
