// The panel of one zone: its course with axes, its seats, its figures and its alerts.

import { element, icon, levelMark, show, write } from "./element.js";
import { Chart } from "./chart.js";
import { levelOf } from "./zones.js";
import * as words from "./words.js";

const STATES = ["free", "occupied", "away", "unknown"];
const REDRAW_MS = 1000;

export class Panel {
  constructor(dialog, house, alertsAbout) {
    this.dialog = dialog;
    this.house = house;
    this.alertsAbout = alertsAbout;
    this.key = null;
    dialog.addEventListener("click", (event) => {
      if (event.target === dialog) dialog.close(); // A click beside the panel lands on the dialog itself.
    });
    dialog.addEventListener("close", () => this.closed());
  }

  open(key) {
    const held = this.house.zones.get(key);
    if (!held) return;
    this.key = key;
    this.build(held);
    if (!this.dialog.open) this.dialog.showModal();
    history.replaceState(null, "", `#zone=${encodeURIComponent(key)}`);
    this.change(true);
  }

  // Opens what the address names, so that a panel can be sent to a colleague.
  openAddressed() {
    const match = /^#zone=(.+)$/.exec(location.hash);
    if (match) this.open(decodeURIComponent(match[1]));
  }

  rebuild() {
    if (this.key && this.house.zones.has(this.key)) this.open(this.key);
  }

  closed() {
    this.key = null;
    this.chart?.close();
    this.chart = null;
    history.replaceState(null, "", location.pathname + location.search);
  }

  build({ zone }) {
    this.chart?.close();
    const close = element("button", { type: "button", className: "close", aria: { label: words.say("close") } }, icon("close"));
    close.addEventListener("click", () => this.dialog.close());
    const floor = zone.parent ? this.house.nameOf(zone.site, zone.parent) : this.house.siteName(zone.site);
    this.level = element("span", { className: "level" });
    this.count = element("strong", {});
    this.of = element("span", {});
    const readout = element("output", { className: "readout" });
    this.chart = new Chart(readout);
    this.none = element("p", { className: "calm", textContent: words.say("history_none") });
    this.figures = element("dl", { className: "figures" });
    this.seats = element("div", { className: "seat-map", role: "list" });
    this.legend = element("p", { className: "legend" });
    this.seatPart = element("section", {}, element("h3", { textContent: words.say("seats") }), this.legend, this.seats);
    this.alertList = element("ul", { className: "short-alerts" });
    this.alertPart = element("section", {}, element("h3", { textContent: words.say("alerts_here") }), this.alertList);
    this.dialog.replaceChildren(
      element("header", {}, element("div", {}, element("p", { className: "over", textContent: floor }),
        element("h2", { id: "panel-title", textContent: words.nameOf(zone.name, zone.zone) })), close),
      element("p", { className: "panel-count" }, this.count, this.of, this.level),
      this.alertPart,
      element("section", {}, element("div", { className: "panel-row" }, element("h3", { textContent: words.say("history") }), readout), this.none, this.chart.svg),
      this.seatPart,
      element("section", {}, this.figures));
    this.squares = new Map();
  }

  // Brings the panel up to date, the costly parts at most once a second.
  change(atOnce = false) {
    const held = this.key && this.house.zones.get(this.key);
    if (!held) return;
    const { zone, course } = held;
    const known = Boolean(zone.as_of);
    write(this.count, known ? words.number(zone.persons) : "–");
    write(this.of, Number.isFinite(zone.capacity) ? words.say("of", { capacity: words.number(zone.capacity) }) : words.say("people", { n: zone.persons ?? 0 }));
    const { level, bars, text } = levelOf(zone);
    if (this.dialog.dataset.level !== level || !this.level.firstChild) {
      this.dialog.dataset.level = level;
      this.level.replaceChildren(levelMark(bars), text);
    }
    if (!atOnce && performance.now() - this.redrawn < REDRAW_MS) return;
    this.redrawn = performance.now();
    const points = course.all();
    show(this.none, points.length < 2);
    this.chart.svg.classList.toggle("gone", points.length < 2);
    if (points.length > 1) {
      const persons = points.map((point) => point[1]);
      this.chart.give(points, zone.capacity ?? null, words.say("history_summary", {
        zone: words.nameOf(zone.name, zone.zone), from: words.hour(points[0][0]), to: words.hour(points.at(-1)[0]),
        low: words.number(Math.min(...persons)), high: words.number(Math.max(...persons)), now: words.number(zone.persons),
      }));
    }
    this.changeFigures(zone);
    this.changeSeats();
    this.changeAlerts(zone);
  }

  changeFigures(zone) {
    const rows = [
      ["range", Number.isFinite(zone.low) && Number.isFinite(zone.high) ? `${words.number(zone.low)}–${words.number(zone.high)}` : "–"],
      ["capacity", Number.isFinite(zone.capacity) ? words.number(zone.capacity) : words.say("unknown_value")],
      ["full", Number.isFinite(zone.share) ? words.percent(zone.share) : "–"],
      ["as_of", zone.as_of ? `${words.day(zone.as_of)} · ${words.ago(zone.as_of)}${zone.stale ? ` · ${words.say("stale")}` : ""}` : words.say("never")],
    ];
    if (this.figures.children.length !== rows.length) {
      this.figures.replaceChildren(...rows.map(([key]) => element("div", {}, element("dt", { textContent: words.say(key) }), element("dd", {}))));
    }
    rows.forEach(([, value], index) => write(this.figures.children[index].lastChild, value));
  }

  changeSeats() {
    const seats = this.house.seatsOf(this.key);
    show(this.seatPart, seats.length > 0);
    const gone = new Set(this.squares.keys());
    for (const seat of seats) {
      gone.delete(seat.seat);
      let square = this.squares.get(seat.seat);
      if (!square) {
        square = element("span", { className: "seat", role: "listitem" });
        this.squares.set(seat.seat, square);
        this.seats.append(square);
      }
      const state = STATES.includes(seat.state) ? seat.state : "unknown";
      if (square.dataset.state !== state) square.dataset.state = state;
      const since = seat.since ? `, ${words.say("since", { time: words.hour(seat.since) })}` : "";
      const title = `${seat.seat}: ${words.say(`seat_${state}`)}${since}`;
      if (square.title !== title) {
        square.title = title;
        square.setAttribute("aria-label", title);
      }
    }
    for (const id of gone) {
      this.squares.get(id).remove();
      this.squares.delete(id);
    }
    const counts = STATES.map((state) => [state, seats.filter((seat) => (STATES.includes(seat.state) ? seat.state : "unknown") === state).length])
      .filter(([state, count]) => count > 0 || state === "free");
    const sign = JSON.stringify(counts);
    if (this.legend.dataset.sign === sign && this.legend.childElementCount) return;
    this.legend.dataset.sign = sign;
    this.legend.replaceChildren(...counts.map(([state, count]) => element("span", {},
      element("i", { className: "seat", data: { state }, aria: { hidden: "true" } }), `${words.say(`seat_${state}`)} ${words.number(count)}`)));
  }

  changeAlerts(zone) {
    const alerts = this.alertsAbout(zone);
    show(this.alertPart, alerts.length > 0);
    this.alertList.replaceChildren(...alerts.slice(0, 5).map(({ alert, text }) => element("li", { data: { severity: alert.severity } },
      icon(alert.severity in { critical: 1, warning: 1 } ? alert.severity : "info"), element("span", { textContent: `${words.say(alert.severity)}: ${text}` }))));
  }
}
