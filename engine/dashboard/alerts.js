// The list of alerts: open ones by urgency, and shelves for those watched, snoozed and recently cleared.

import { arrange, element, holdsFocus, show, write } from "./element.js";
import { AlertItem, severityOf } from "./alert.js";
import * as api from "./api.js";
import * as words from "./words.js";

const CLEARED_MAX = 20;
// More than this are nobody's to read; the number beside them is told.
const SHOWN_MAX = 100;
const SHELF_MAX = 30;
const ON_PHONE = 3;
const SNOOZE_MINUTES = 30;
const ANNOUNCE_MS = 1500;
const RANK = { critical: 0, warning: 1, info: 2 };

const byId = (id) => document.getElementById(id);

export class Alerts {
  constructor(house, toast) {
    this.house = house;
    this.toast = toast;
    this.alerts = new Map();
    this.items = new Map();
    this.fresh = null;
    this.loaded = false;
    this.unsaid = [];
    this.list = byId("alerts-open");
    this.shelves = {};
    for (const name of ["watched", "quieted", "cleared"]) {
      const shelf = byId(`shelf-${name}`);
      this.shelves[name] = { shelf, summary: shelf.querySelector("summary"), list: shelf.querySelector("ul") };
      shelf.addEventListener("toggle", () => this.arrange());
    }
    this.acting = byId("acting");
    this.acting.value = words.remembered("usher.acting", "");
    this.acting.addEventListener("change", () => words.remember("usher.acting", this.acting.value.trim()));
    this.moreButton = byId("alerts-more");
    this.moreButton.addEventListener("click", () => {
      byId("alerts").classList.toggle("all");
      this.arrange();
    });
  }

  expectList() {
    this.fresh = new Set();
  }

  // Takes the open alerts, and on the first time the latest cleared ones. What is no longer open was cleared meanwhile.
  takeList(open, cleared) {
    const listed = new Set();
    for (const alert of [...(cleared ?? []), ...open]) {
      listed.add(alert.id);
      if (!this.fresh?.has(alert.id)) this.alerts.set(alert.id, alert);
    }
    for (const [id, alert] of this.alerts) {
      if (!listed.has(id) && alert.state !== "cleared" && !this.fresh?.has(id)) this.alerts.set(id, { ...alert, state: "cleared" });
    }
    this.fresh = null;
    this.loaded = true;
    this.changed();
  }

  // Takes one step of an alert's life from the stream, or as an action's answer.
  take(alert) {
    if (!alert?.id) return;
    const before = this.alerts.get(alert.id);
    this.fresh?.add(alert.id);
    this.alerts.set(alert.id, { ...before, ...alert });
    const heldBack = before?.snoozed || before?.suppressed;
    const isNew = alert.state === "active" && ((before?.state !== "active" && before?.state !== "recovering") || heldBack);
    if (this.loaded && isNew && !alert.snoozed && !alert.suppressed) this.announce(alert);
  }

  // Shows what was taken. Called once a frame at most.
  changed() {
    const cleared = [...this.alerts.values()].filter((alert) => alert.state === "cleared").sort(latest);
    for (const alert of cleared.slice(CLEARED_MAX)) {
      this.alerts.delete(alert.id);
      this.items.delete(alert.id);
    }
    this.arrange();
  }

  rebuild() {
    this.items.clear();
    this.acting.placeholder = words.say("nobody");
    this.arrange();
  }

  arrange() {
    const places = { open: [], watched: [], quieted: [], cleared: [] };
    for (const alert of this.alerts.values()) places[placeOf(alert)].push(alert);
    this.openAlerts = places.open;
    places.open.sort((a, b) => RANK[severityOf(a)] - RANK[severityOf(b)] || taken(a) - taken(b) || latest(a, b));
    this.put(this.list, places.open, SHOWN_MAX);
    for (const [name, { shelf, summary, list }] of Object.entries(this.shelves)) {
      places[name].sort(latest);
      write(summary, words.say(name, { n: places[name].length }));
      show(shelf, places[name].length > 0);
      this.put(list, shelf.open ? places[name] : [], SHELF_MAX);
    }
    show(byId("alerts-none"), this.loaded && !places.open.length);
    write(byId("alerts-none"), words.say("none_open"));
    const all = byId("alerts").classList.contains("all");
    const hidden = places.open.length - ON_PHONE;
    show(this.moreButton, hidden > 0);
    write(this.moreButton, all ? words.say("fewer_alerts") : words.say("more_alerts", { n: hidden }));
    this.changeSummary(places.open);
  }

  put(list, alerts, most) {
    const nodes = alerts.slice(0, most).map((alert) => {
      let item = this.items.get(alert.id);
      if (!item) {
        item = new AlertItem(alert, (action, id, argument) => this.act(action, id, argument), (one) => this.zoneOf(one));
        this.items.set(alert.id, item);
      } else if (item.alert !== alert) item.change(alert);
      return item.root;
    });
    if (alerts.length > most) nodes.push(element("li", { className: "calm", textContent: words.say("not_shown", { n: alerts.length - most }) }));
    // While someone writes or presses here nothing trades places; new ones still come, at the end of the next turn.
    if (holdsFocus(list) && nodes.every((node) => list.contains(node)) && nodes.length === list.children.length) return;
    const active = list.contains(document.activeElement) ? document.activeElement : null;
    arrange(list, nodes);
    if (active?.isConnected && document.activeElement !== active) active.focus({ preventScroll: true });
  }

  changeSummary(open) {
    const waiting = open.filter((alert) => alert.state !== "acknowledged").length;
    const critical = open.filter((alert) => severityOf(alert) === "critical" && alert.state !== "acknowledged").length;
    write(document.querySelector("[data-summary=alerts]"), this.loaded ? words.number(open.length) : "–");
    const note = critical ? words.say("alerts_critical", { n: critical })
      : waiting ? words.say("alerts_new", { n: waiting })
        : open.length ? words.say("alerts_taken") : words.say("alerts_calm");
    write(document.querySelector("[data-summary=alerts-note]"), this.loaded ? note : "");
    document.querySelector(".tile-alerts").dataset.urgency = critical ? "critical" : waiting ? "warning" : "calm";
    this.waiting = waiting;
  }

  // The name of the zone an alert is about, or that its seat or sensor is in; empty when it is not known.
  zoneOf(alert) {
    const id = alert.subject?.kind === "zone" ? alert.subject.id : alert.values?.zone ?? this.zoneOfSeat(alert);
    return id ? this.house.nameOf(alert.site, id) : "";
  }

  zoneOfSeat(alert) {
    if (alert.subject?.kind !== "seat") return null;
    return this.house.allSeats().find((seat) => seat.seat === alert.subject.id && seat.site === alert.site)?.zone ?? null;
  }

  // Open alerts about a zone or something in it, with their texts.
  about(zone) {
    return (this.openAlerts ?? [])
      .filter((alert) => alert.site === zone.site && (alert.subject?.kind === "zone" ? alert.subject.id : alert.values?.zone ?? this.zoneOfSeat(alert)) === zone.zone)
      .map((alert) => ({ alert, text: words.alertText(alert, this.zoneOf(alert)) }));
  }

  async act(action, id, argument) {
    try {
      const answer = await {
        acknowledge: () => api.acknowledge(id, this.acting.value.trim() || words.say("nobody")),
        snooze: () => api.snooze(id, SNOOZE_MINUTES),
        clear: () => api.clear(id),
        comment: () => api.comment(id, argument),
      }[action]();
      if (answer?.id) {
        this.take(answer);
        this.changed();
      }
      if (action === "comment") this.toast(words.say("commented"));
      return true;
    } catch (refusal) {
      this.toast(words.say("action_failed", { reason: refusal.message }));
      return false;
    }
  }

  // Tells a screen reader. Several at once are told by their number; a critical one interrupts.
  announce(alert) {
    this.unsaid.push(alert);
    this.telling ??= setTimeout(() => {
      this.telling = null;
      const told = this.unsaid.splice(0);
      const text = (one) => `${words.say(severityOf(one))}: ${words.alertText(one, this.zoneOf(one))}`;
      const critical = told.filter((one) => severityOf(one) === "critical");
      if (critical.length) byId("announce-now").textContent = critical.slice(0, 3).map(text).join(". ");
      const others = told.filter((one) => severityOf(one) !== "critical");
      if (others.length) byId("announce").textContent = others.length > 3 ? words.say("announce_many", { n: others.length }) : others.map(text).join(". ");
    }, ANNOUNCE_MS);
  }

  tick() {
    for (const item of this.items.values()) if (item.root.isConnected) item.age();
  }
}

const taken = (alert) => (alert.state === "acknowledged" ? 1 : 0);
const timeOf = (alert) => Date.parse(alert.event_time ?? alert.raised_at) || 0;
const latest = (a, b) => timeOf(b) - timeOf(a);

function placeOf(alert) {
  if (alert.state === "cleared") return "cleared";
  if (alert.snoozed || alert.suppressed) return "quieted";
  return alert.state === "pending" ? "watched" : "open";
}
