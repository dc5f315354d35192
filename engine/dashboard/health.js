// The engine's health: the words at the top, the panel behind them, and the banner when nothing is heard.

import * as clock from "./clock.js";
import { element, show, write } from "./element.js";
import * as words from "./words.js";

// The engine speaks about once a second. This long without a word, and staff should know the figures stand still.
const SILENCE_MS = 20000;

const byId = (id) => document.getElementById(id);

export class Health {
  constructor() {
    this.last = null;
    this.heardAt = null;
    this.lostSince = null;
    this.connected = false;
    this.failure = null;
  }

  hear(health) {
    this.last = health;
    this.heardAt = performance.now();
    clock.heard(health.now, this.heardAt);
    words.useTimeZone(health.time_zone);
    this.change();
  }

  opened() {
    this.connected = true;
    this.lostSince = null;
    this.heardAt &&= performance.now();
    this.change();
  }

  lost() {
    this.connected = false;
    // By the engine's clock, as all times on the page.
    this.lostSince = clock.now();
    this.change();
  }

  // A list could not be read, for this reason in words; null when it could again.
  failed(reason) {
    this.failure = reason;
    this.change();
  }

  status() {
    if (this.lostSince !== null) return "lost";
    if (!this.connected || !this.last) return "waiting";
    return this.last.status === "ok" ? "ok" : "degraded";
  }

  change() {
    const status = this.status();
    byId("health-button").dataset.status = status;
    write(byId("health-word"), words.say(`health_${status}`));
    document.body.classList.toggle("is-lost", status === "lost");
    this.changePanel();
    this.changeSummary();
    this.tick();
  }

  // Once a second: the clock, and how long nothing was heard.
  tick() {
    const now = clock.now();
    const speed = clock.speed();
    write(byId("clock-time"), words.clockTime(now));
    byId("clock-time").title = words.say("engine_clock");
    const replay = speed !== null && speed > 1.5 ? words.say("replay", { speed: words.number(speed) }) : "";
    write(byId("clock-date"), [words.date(now), replay].filter(Boolean).join(" · "));

    const silent = this.connected && this.heardAt !== null && performance.now() - this.heardAt > SILENCE_MS;
    let text = "";
    if (this.lostSince !== null) text = this.heardAt === null ? words.say("lost_plain") : words.say("lost", { time: words.clockTime(this.lostSince) });
    else if (this.failure !== null) text = words.say("load_failed", { reason: this.failure });
    else if (silent) text = words.say("silent", { time: words.clockTime(clock.now()) });
    write(byId("banner"), text);
    show(byId("banner"), text !== "");
  }

  changeSummary() {
    const { last } = this;
    const rate = last?.events_per_second;
    write(document.querySelector("[data-summary=events]"), Number.isFinite(rate) ? (rate < 10 ? words.decimal(Math.round(rate * 10) / 10) : words.number(rate)) : "–");
    const p99 = last?.alert_latency_ms_p99;
    write(document.querySelector("[data-summary=events-note]"), Number.isFinite(p99) ? words.say("latency_note", { ms: words.milliseconds(p99) }) : "");
  }

  changePanel() {
    const last = this.last ?? {};
    const rows = [
      ["messages_per_second", words.decimal(last.messages_per_second)],
      ["events_per_second", words.decimal(last.events_per_second)],
      ["alert_latency", words.milliseconds(last.alert_latency_ms_p50)],
      ["alert_latency_99", words.milliseconds(last.alert_latency_ms_p99)],
      ["log_lag", words.milliseconds(1_000 * last.log_waiting_s)],
      ["refused", words.number(last.refused)],
      ["devices_silent", words.number(last.devices_silent)],
    ];
    const figures = byId("health-figures");
    if (figures.children.length !== rows.length) {
      figures.replaceChildren(...rows.map(() => element("div", {}, element("dt", {}), element("dd", {}))));
    }
    rows.forEach(([key, value], index) => {
      const [name, figure] = figures.children[index].children;
      write(name, words.say(key));
      write(figure, value);
    });
    this.changeParts(last.parts ?? []);
    const sources = last.sources ?? [];
    const list = byId("health-sources");
    const sign = words.spoken() + JSON.stringify(sources);
    if (list.dataset.sign === sign) return;
    list.dataset.sign = sign;
    list.replaceChildren(...(sources.length ? sources.map((source) => element("li", { data: { connected: Boolean(source.connected) } },
      element("b", { textContent: source.name ?? "–" }),
      element("span", { textContent: words.say(source.connected ? "connected" : "disconnected") }),
      source.detail ? element("small", { textContent: source.detail }) : null,
      source.shed > 0 ? element("small", { textContent: words.say("source_shed", { n: source.shed }) }) : null,
    )) : [element("li", { textContent: words.say("no_sources") })]));
  }

  // What has failed and was started again, or is about to be.
  changeParts(parts) {
    const box = byId("health-parts");
    show(box, parts.length > 0);
    const list = box.querySelector("ul");
    const sign = words.spoken() + JSON.stringify(parts);
    if (list.dataset.sign === sign) return;
    list.dataset.sign = sign;
    list.replaceChildren(...parts.map((part) => {
      const runs = part.state === "running";
      return element("li", { data: { connected: runs } },
        element("b", { textContent: part.part }),
        element("span", { textContent: words.say(runs ? "part_running" : "part_waiting", { times: words.number(part.failures) }) }),
        element("small", { textContent: part.detail }),
      );
    }));
  }
}
