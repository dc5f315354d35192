// A chart of how many people were in a zone: a small line for a card, a large one with axes for the panel.

import { drawn, write } from "./element.js";
import * as words from "./words.js";

// A small line has this many points at most: more is not seen.
const POINTS_MAX = 96;
const STEP_MS_FIRST = 60000;

// The course of one zone: points of the past, and the live one that moves at its end.
export class History {
  constructor(points) {
    this.points = (points ?? []).filter((point) => Number.isFinite(point?.[0]) && Number.isFinite(point?.[1])).slice(-POINTS_MAX);
    this.stepMs = medianStep(this.points) ?? STEP_MS_FIRST;
    this.live = null;
  }

  // Takes a live value. It becomes a point once it is a step away from the last.
  take(time, persons) {
    if (!Number.isFinite(time) || !Number.isFinite(persons)) return;
    // A recording that starts again begins a new course.
    if (this.live && time < this.live[0] - 2 * this.stepMs) this.points = [];
    if (!this.points.length || time - this.points.at(-1)[0] >= this.stepMs) {
      this.points.push([time, persons]);
      // Thin out rather than forget the beginning of a course we watched ourselves.
      if (this.points.length > POINTS_MAX) {
        this.points = this.points.filter((_, index) => index % 2 === 0);
        this.stepMs *= 2;
      }
    }
    this.live = [time, persons];
  }

  all() {
    const last = this.points.at(-1);
    return this.live && (!last || this.live[0] > last[0]) ? [...this.points, this.live] : this.points;
  }

  // The value that held at `time`, or null when the course begins later.
  at(time) {
    let value = null;
    for (const [when, persons] of this.points) {
      if (when > time) break;
      value = persons;
    }
    return value;
  }
}

function medianStep(points) {
  if (points.length < 3) return null;
  const steps = points.slice(1).map((point, index) => point[0] - points[index][0]).filter((step) => step > 0).sort((a, b) => a - b);
  return steps[Math.floor(steps.length / 2)] ?? null;
}

// The sum of several courses, each holding its value until its next point.
export function total(histories) {
  const series = histories.map((history) => history.all()).filter((points) => points.length > 1);
  if (!series.length) return [];
  const times = [...new Set(series.flatMap((points) => points.map((point) => point[0])))].sort((a, b) => a - b);
  const stride = Math.max(1, Math.ceil(times.length / POINTS_MAX));
  const places = series.map(() => 0);
  const sum = [];
  times.forEach((time, index) => {
    if (index % stride !== 0 && index !== times.length - 1) return;
    let value = 0;
    series.forEach((points, which) => {
      while (places[which] + 1 < points.length && points[places[which] + 1][0] <= time) places[which] += 1;
      if (points[places[which]][0] <= time) value += points[places[which]][1];
    });
    sum.push([time, value]);
  });
  return sum;
}

const round = (value) => Math.round(value * 10) / 10;

// A path through `points`: straight pieces, since a count between two readings is nobody's guess to smooth.
function line(points, x, y) {
  return points.map((point, index) => `${index ? "L" : "M"}${round(x(point[0]))} ${round(y(point[1]))}`).join("");
}

const SPARK = { width: 200, height: 40 };

// Draws `points` into the small `svg`, from 0 up to at least `reach` people.
export function spark(svg, points, reach) {
  if (!svg.firstChild) {
    svg.setAttribute("viewBox", `0 0 ${SPARK.width} ${SPARK.height}`);
    svg.setAttribute("preserveAspectRatio", "none");
    svg.append(drawn("path", { class: "area" }), drawn("path", { class: "line", "vector-effect": "non-scaling-stroke" }));
  }
  const [area, stroke] = svg.children;
  if (points.length < 2) {
    area.removeAttribute("d");
    stroke.removeAttribute("d");
    return;
  }
  const from = points[0][0];
  const span = Math.max(1, points.at(-1)[0] - from);
  const most = Math.max(reach, ...points.map((point) => point[1]));
  const x = (time) => ((time - from) / span) * SPARK.width;
  const y = (persons) => SPARK.height - 2 - (persons / most) * (SPARK.height - 5);
  const path = line(points, x, y);
  stroke.setAttribute("d", path);
  area.setAttribute("d", `${path}L${SPARK.width} ${SPARK.height}L0 ${SPARK.height}Z`);
}

const HOURS = [1 / 60, 1 / 12, 1 / 6, 1 / 4, 1 / 2, 1, 2, 3, 4, 6, 12, 24, 48].map((hours) => hours * 3600000);
const MARGIN = { top: 18, right: 14, bottom: 26, left: 36 };

function niceStep(most, ticks) {
  const raw = most / ticks;
  const power = 10 ** Math.floor(Math.log10(Math.max(raw, 1)));
  return [1, 2, 5, 10].map((factor) => factor * power).find((step) => step >= raw) ?? power * 10;
}

// The large chart: drawn at its real size, so that its letters keep theirs; read with pointer or arrow keys.
export class Chart {
  constructor(readout) {
    this.readout = readout;
    this.svg = drawn("svg", { class: "chart", role: "img", tabindex: "0" });
    this.points = [];
    this.picked = null;
    this.svg.addEventListener("pointermove", (event) => this.pickAt(event.clientX));
    this.svg.addEventListener("pointerleave", () => this.pick(null));
    this.svg.addEventListener("blur", () => this.pick(null));
    this.svg.addEventListener("keydown", (event) => this.step(event));
    this.sizes = new ResizeObserver(() => this.draw());
    this.sizes.observe(this.svg);
  }

  give(points, capacity, label) {
    this.points = points;
    this.capacity = capacity;
    this.svg.setAttribute("aria-label", label);
    this.draw();
  }

  draw() {
    const box = this.svg.getBoundingClientRect();
    const { svg, points } = this;
    if (box.width < 60 || points.length < 2) {
      svg.replaceChildren();
      return;
    }
    const [width, height] = [box.width, box.height];
    const letter = parseFloat(getComputedStyle(svg).fontSize) || 12;
    const left = Math.max(MARGIN.left, letter * 2.6);
    const bottom = Math.max(MARGIN.bottom, letter * 2);
    const from = points[0][0];
    const span = Math.max(1, points.at(-1)[0] - from);
    const most = Math.max(4, this.capacity ?? 0, ...points.map((point) => point[1]));
    const tick = niceStep(most, 4);
    const top = Math.ceil(most / tick) * tick;
    this.x = (time) => left + ((time - from) / span) * (width - left - MARGIN.right);
    this.y = (persons) => height - bottom - (persons / top) * (height - bottom - MARGIN.top);
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);

    const parts = [];
    for (let value = 0; value <= top; value += tick) {
      parts.push(drawn("line", { class: "grid", x1: left, x2: width - MARGIN.right, y1: this.y(value), y2: this.y(value) }));
      parts.push(label(left - 8, this.y(value) + letter * 0.35, "end", words.number(value)));
    }
    for (const time of this.hours(from, span, (width - left) / (letter * 5.5))) {
      parts.push(drawn("line", { class: "grid", x1: this.x(time), x2: this.x(time), y1: height - bottom, y2: height - bottom + 4 }));
      parts.push(label(this.x(time), height - bottom + letter * 1.5, "middle", words.hour(time)));
    }
    const path = line(points, this.x, this.y);
    parts.push(drawn("path", { class: "area", d: `${path}L${this.x(points.at(-1)[0])} ${this.y(0)}L${left} ${this.y(0)}Z` }));
    if (this.capacity) {
      const level = this.y(this.capacity);
      parts.push(drawn("line", { class: "limit", x1: left, x2: width - MARGIN.right, y1: level, y2: level }));
      parts.push(label(width - MARGIN.right, level - 5, "end", `${words.say("capacity")} ${words.number(this.capacity)}`));
    }
    parts.push(drawn("path", { class: "line", d: path }));
    parts.push(drawn("circle", { class: "live", cx: this.x(points.at(-1)[0]), cy: this.y(points.at(-1)[1]), r: 4 }));
    this.cross = drawn("g", { class: "cross" }, drawn("line", { y1: MARGIN.top, y2: height - bottom }), drawn("circle", { r: 4.5 }));
    parts.push(this.cross);
    svg.replaceChildren(...parts);
    this.pick(this.picked);
  }

  // Full hours (or parts of one) by the local clock, as many as there is room for.
  hours(from, span, room) {
    const step = HOURS.find((candidate) => span / candidate <= room) ?? HOURS.at(-1);
    const shift = new Date(from).getTimezoneOffset() * 60000;
    const times = [];
    for (let time = Math.ceil((from - shift) / step) * step + shift; time <= from + span; time += step) times.push(time);
    return times;
  }

  pickAt(clientX) {
    if (!this.x || this.points.length < 2) return;
    const offset = clientX - this.svg.getBoundingClientRect().left;
    let nearest = 0;
    this.points.forEach((point, index) => {
      if (Math.abs(this.x(point[0]) - offset) < Math.abs(this.x(this.points[nearest][0]) - offset)) nearest = index;
    });
    this.pick(nearest);
  }

  step(event) {
    const moves = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity };
    if (!(event.key in moves) || this.points.length < 2) return;
    event.preventDefault();
    const last = this.points.length - 1;
    this.pick(Math.min(last, Math.max(0, (this.picked ?? last) + moves[event.key])));
  }

  pick(index) {
    this.picked = index === null ? null : Math.min(index, this.points.length - 1);
    const point = this.picked === null ? null : this.points[this.picked];
    this.cross?.classList.toggle("on", Boolean(point));
    if (point && this.cross) {
      const [line_, dot] = this.cross.children;
      line_.setAttribute("x1", this.x(point[0]));
      line_.setAttribute("x2", this.x(point[0]));
      dot.setAttribute("cx", this.x(point[0]));
      dot.setAttribute("cy", this.y(point[1]));
    }
    write(this.readout, point ? `${words.hour(point[0])} · ${words.number(point[1])} ${words.say("people", { n: point[1] })}` : "");
  }

  close() {
    this.sizes.disconnect();
  }
}

function label(x, y, anchor, text) {
  const node = drawn("text", { x, y, "text-anchor": anchor });
  node.textContent = text;
  return node;
}
