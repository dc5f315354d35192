// The house as the page knows it: zones with their courses, who is part of whom, and seats.

import { History, total } from "./chart.js";
import * as words from "./words.js";

export const LEVELS = { quiet: 1, busy: 2, "very busy": 3 };

export const keyOf = (site, id) => `${site ?? ""}/${id}`;

export class House {
  constructor() {
    this.zones = new Map();
    this.seats = new Map();
    // Zones the stream has spoken of while a list was on its way: what the list says of them may be older.
    this.fresh = null;
  }

  expectList() {
    this.fresh = new Set();
  }

  // Takes the whole list of zones. Zones that are not in it are gone.
  takeList(items) {
    const before = this.zones;
    this.zones = new Map();
    for (const item of items) {
      const key = keyOf(item.site, item.zone);
      const { history, ...zone } = item;
      const held = before.get(key);
      const course = new History(history);
      const keepHeld = held && this.fresh?.has(key) && (held.as_of ?? "") >= (zone.as_of ?? "");
      const now = keepHeld ? { ...zone, ...held.zone } : zone;
      course.take(Date.parse(now.as_of), now.persons);
      this.zones.set(key, { key, zone: now, course });
    }
    if (this.fresh) for (const [key, held] of before) if (this.fresh.has(key) && !this.zones.has(key)) this.zones.set(key, held);
    this.fresh = null;
    this.relate();
  }

  // Takes one zone as the stream tells it. Answers whether the zone is new, so that it needs a place on the page.
  takeZone(item) {
    const { history, ...zone } = item;
    const key = keyOf(zone.site, zone.zone);
    this.fresh?.add(key);
    const held = this.zones.get(key);
    if (held) {
      const moved = (zone.parent ?? held.zone.parent ?? null) !== (held.zone.parent ?? null);
      held.zone = { ...held.zone, ...zone };
      held.course.take(Date.parse(zone.as_of), zone.persons);
      if (moved) this.relate();
      return moved;
    }
    const course = new History(history);
    course.take(Date.parse(zone.as_of), zone.persons);
    this.zones.set(key, { key, zone, course });
    this.relate();
    return true;
  }

  takeSeats(items) {
    this.seats = new Map();
    for (const seat of items) {
      const key = keyOf(seat.site, seat.zone);
      if (!this.seats.has(key)) this.seats.set(key, []);
      this.seats.get(key).push(seat);
    }
    for (const seats of this.seats.values()) seats.sort((a, b) => words.compare(a.seat, b.seat));
  }

  relate() {
    this.parts = new Map();
    for (const { key, zone } of this.zones.values()) {
      if (!zone.parent) continue;
      const parent = keyOf(zone.site, zone.parent);
      if (parent === key) continue;
      if (!this.parts.has(parent)) this.parts.set(parent, []);
      this.parts.get(parent).push(key);
    }
  }

  partsOf(key) {
    return this.parts.get(key) ?? [];
  }

  leaves() {
    return [...this.zones.values()].filter(({ key }) => this.partsOf(key).length === 0);
  }

  // Zones by the floor they are part of, in the order of the list: `[{key, zone or null, id, leaves}]`. Those of no floor come last.
  floors() {
    const floors = new Map();
    for (const held of this.leaves()) {
      const { zone } = held;
      const key = zone.parent ? keyOf(zone.site, zone.parent) : keyOf(zone.site, "");
      if (!floors.has(key)) floors.set(key, { key, id: zone.parent ?? null, site: zone.site, leaves: [] });
      floors.get(key).leaves.push(held);
    }
    const places = new Map([...this.zones.keys()].map((key, index) => [key, index]));
    const place = (floor) => (floor.id === null ? Infinity : places.get(floor.key) ?? 1e6);
    return [...floors.values()].sort((a, b) => (place(a) === place(b) ? 0 : place(a) - place(b)));
  }

  // Who is in a zone: what it says itself, or the sum of its parts. `known` is false as long as nobody has said anything.
  crowd(key, depth = 0) {
    const zone = this.zones.get(key)?.zone;
    if (zone?.as_of && Number.isFinite(zone.persons)) return { persons: zone.persons, known: true };
    if (depth > 8) return { persons: 0, known: false }; // A ring of parents has no sum.
    return sum(this.partsOf(key).map((part) => this.crowd(part, depth + 1)));
  }

  capacity(key, depth = 0) {
    const zone = this.zones.get(key)?.zone;
    if (Number.isFinite(zone?.capacity)) return zone.capacity;
    const parts = depth > 8 ? [] : this.partsOf(key).map((part) => this.capacity(part, depth + 1));
    return parts.length && parts.every((part) => part !== null) ? parts.reduce((a, b) => a + b, 0) : null;
  }

  roots() {
    return [...this.zones.values()]
      .filter(({ zone }) => !zone.parent || !this.zones.has(keyOf(zone.site, zone.parent)))
      .map(({ key }) => key);
  }

  everyone() {
    const roots = this.roots();
    // Only where a capacity is known is there a share of it; the others' people count all the same.
    const bounded = roots.filter((key) => this.capacity(key) !== null);
    const capacity = bounded.reduce((all, key) => all + this.capacity(key), 0);
    return {
      ...sum(roots.map((key) => this.crowd(key))),
      capacity: capacity || null,
      share: capacity ? sum(bounded.map((key) => this.crowd(key))).persons / capacity : null,
    };
  }

  // The course of the whole house, from the same zones whose sum `everyone` is.
  course() {
    const histories = [];
    const gather = (key, depth) => {
      const held = this.zones.get(key);
      if (held?.zone.as_of || depth > 8 || !this.partsOf(key).length) {
        if (held) histories.push(held.course);
      } else for (const part of this.partsOf(key)) gather(part, depth + 1);
    };
    for (const root of this.roots()) gather(root, 0);
    return total(histories);
  }

  seatsOf(key) {
    return this.seats.get(key) ?? [];
  }

  allSeats() {
    return [...this.seats.values()].flat();
  }

  sites() {
    return [...new Set([...this.zones.values()].map(({ zone }) => zone.site))];
  }

  nameOf(site, id) {
    return words.nameOf(this.zones.get(keyOf(site, id))?.zone.name, id);
  }

  siteName(site) {
    for (const { zone } of this.zones.values()) if (zone.site === site && zone.site_name) return words.nameOf(zone.site_name, site);
    return words.readable(site);
  }
}

function sum(crowds) {
  return crowds.reduce((all, one) => ({ persons: all.persons + one.persons, known: all.known || one.known }), { persons: 0, known: false });
}

export const freeOf = (seats) => seats.filter((seat) => seat.state === "free").length;
