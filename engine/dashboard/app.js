// The staff page: reads the lists once, then follows the stream and shows what changed, one frame at a time.

import * as api from "./api.js";
import { Alerts } from "./alerts.js";
import { spark } from "./chart.js";
import { Deliveries } from "./deliveries.js";
import { show, write } from "./element.js";
import { Health } from "./health.js";
import { freeOf, House, keyOf } from "./house.js";
import { Panel } from "./panel.js";
import * as words from "./words.js";
import { Board } from "./zones.js";

// Seats are not in the stream: often enough to find one, seldom enough to cost nothing.
const SEATS_MS = 5000;
const TICK_MS = 1000;
// The lists are read again now and then, so that nothing missed stays missed.
const RELOAD_MS = 5 * 60000;
const RETRY_MS = 3000;
const HIDDEN_FRAME_MS = 500;

const byId = (id) => document.getElementById(id);

function toast(text) {
  const node = byId("toast");
  node.textContent = text;
  node.classList.add("on");
  clearTimeout(toast.timer);
  toast.timer = setTimeout(() => node.classList.remove("on"), 4000);
}

words.speakFirst();
const house = new House();
const health = new Health();
const alerts = new Alerts(house, toast);
const deliveries = new Deliveries(byId("health-receivers"), byId("letters"), toast, (alert) => alerts.zoneOf(alert));
const panel = new Panel(byId("panel"), house, (zone) => alerts.about(zone));
const board = new Board(byId("board"), house, (key) => panel.open(key));
let loaded = false;

// What the stream said since the last frame: of a zone only the newest word counts.
const waiting = { zones: new Map(), alerts: [], health: null };
let frame = null;

function schedule() {
  // A hidden page gets no frames; it still has to keep up, or its queue would grow until someone looks.
  frame ??= document.hidden ? { timer: setTimeout(apply, HIDDEN_FRAME_MS) } : { request: requestAnimationFrame(apply) };
}

function apply() {
  frame = null;
  let moved = false;
  for (const item of waiting.zones.values()) moved = house.takeZone(item) || moved;
  if (waiting.zones.size) {
    if (moved && loaded) board.build();
    else for (const key of waiting.zones.keys()) board.change(key);
    board.changeFloors();
    panel.change();
    changePeople();
    waiting.zones.clear();
  }
  if (waiting.alerts.length) {
    for (const alert of waiting.alerts.splice(0)) alerts.take(alert);
    alerts.changed();
    changeTitle();
  }
  if (waiting.health) {
    health.hear(waiting.health);
    deliveries.change(waiting.health.receivers ?? []);
    waiting.health = null;
  }
}

document.addEventListener("visibilitychange", () => {
  if (!frame) return;
  cancelAnimationFrame(frame.request);
  clearTimeout(frame.timer);
  apply();
});

function changePeople() {
  const { persons, known, capacity, share } = house.everyone();
  write(document.querySelector("[data-summary=people]"), known ? words.number(persons) : "–");
  write(document.querySelector("[data-summary=people-note]"), known && capacity
    ? words.say("of_capacity", { capacity: words.number(capacity), share: words.percent(share) }) : "");
}

function changeSeats() {
  const seats = house.allSeats();
  write(document.querySelector("[data-summary=seats]"), seats.length ? words.number(freeOf(seats)) : "–");
  write(document.querySelector("[data-summary=seats-note]"), seats.length ? words.say("of_seats", { seats: words.number(seats.length) }) : words.say("no_seats"));
}

function changeTitle() {
  const sites = house.sites();
  const name = sites.map((site) => house.siteName(site)).slice(0, 3).join(", ") || "Usher";
  write(byId("site-name"), name);
  const title = `${alerts.waiting ? `(${alerts.waiting}) ` : ""}${name === "Usher" ? name : `${name} · Usher`}`;
  if (document.title !== title) document.title = title;
}

function changeWaiting() {
  const empty = house.zones.size === 0;
  const silent = !empty && [...house.zones.values()].every(({ zone }) => !zone.as_of);
  show(byId("waiting"), loaded && (empty || silent));
  byId("waiting").classList.toggle("slim", silent);
  write(byId("waiting-title"), words.say(empty ? "empty_title" : "waiting_title"));
  write(byId("waiting-text"), words.say(empty ? "empty_text" : "waiting_text"));
}

// Draws everything anew: after a list, and in another language.
function rebuild() {
  board.build();
  panel.change(true);
  alerts.arrange();
  health.change();
  changePeople();
  changeSeats();
  changeTitle();
  changeWaiting();
  spark(byId("house-spark"), house.course(), 4);
}

let loading = false;
let outdated = false;
let loadAgain = null;

// Reads all lists. Called again while it still reads, it does so once more afterwards: what is being read may be from before
// the call.
async function load() {
  clearTimeout(loadAgain);
  outdated = true;
  if (loading) return;
  loading = true;
  while (outdated) {
    outdated = false;
    await readLists();
  }
  loading = false;
  loadAgain = setTimeout(load, health.failure === null ? RELOAD_MS : RETRY_MS);
}

async function readLists() {
  house.expectList();
  alerts.expectList();
  try {
    const [zones, seats, open, cleared] = await Promise.all([
      api.zones(), api.seats().catch(() => []), api.openAlerts(), api.clearedAlerts().catch(() => []),
    ]);
    house.takeList(zones);
    house.takeSeats(seats);
    const first = !loaded;
    loaded = true;
    alerts.takeList(open, cleared);
    health.failed(null);
    if (first) panel.openAddressed();
    rebuild();
  } catch (failure) {
    health.failed(failure.message);
  }
}

async function readSeats() {
  if (loaded && !document.hidden && health.status() !== "lost") {
    const seats = await api.seats().catch(() => null);
    if (seats) {
      house.takeSeats(seats);
      changeSeats();
      for (const key of house.seats.keys()) board.change(key);
      panel.change();
    }
  }
  setTimeout(readSeats, SEATS_MS);
}

function tick() {
  board.tick();
  alerts.tick();
  health.tick();
  panel.change();
  changeWaiting();
  if (loaded) spark(byId("house-spark"), house.course(), 4);
}

function pressed(selector, value, name) {
  for (const button of document.querySelectorAll(selector)) button.setAttribute("aria-pressed", String(button.dataset[name] === value));
}

for (const button of document.querySelectorAll("[data-language]")) {
  button.addEventListener("click", () => {
    words.speak(button.dataset.language);
    pressed("[data-language]", words.spoken(), "language");
    alerts.rebuild();
    rebuild();
    deliveries.rebuild();
    panel.rebuild();
  });
}

for (const button of document.querySelectorAll("[data-order]")) {
  button.addEventListener("click", () => {
    board.orderBy(button.dataset.order);
    pressed("[data-order]", board.order, "order");
  });
}

byId("copy").addEventListener("click", async () => {
  try {
    await navigator.clipboard.writeText(byId("command").textContent);
    toast(words.say("copied"));
  } catch {
    // Browsers give the clipboard to secure pages only: elsewhere the line is selected for the reader's own keys.
    getSelection().selectAllChildren(byId("command"));
    toast(words.say("copy_by_hand"));
  }
});

pressed("[data-language]", words.spoken(), "language");
pressed("[data-order]", board.order, "order");
alerts.rebuild();
health.change();
readSeats();
setInterval(tick, TICK_MS);
load();

api.listen({
  connected: () => {
    health.opened();
    // What came since the lists were read is told to nobody who did not listen yet.
    load();
  },
  lost: () => health.lost(),
  back: () => {
    health.opened();
    toast(words.say("back"));
    load();
  },
  reset: () => load(),
  occupancy: (zone) => {
    waiting.zones.set(keyOf(zone.site, zone.zone), zone);
    schedule();
  },
  alert: (alert) => {
    waiting.alerts.push(alert);
    schedule();
  },
  health: (state) => {
    waiting.health = state;
    schedule();
  },
});
