// One alert on the page: what it says, what can be done about it, and what is behind it.

import { drawn, element, icon, show, write } from "./element.js";
import { History } from "./history.js";
import * as words from "./words.js";

const CAUSES_SHOWN = 12;
const STAGES = [["decoded", "received_us"], ["evaluated", "decoded_us"], ["sent", "evaluated_us"]];
const KNOWN_SEVERITIES = ["critical", "warning", "info"];

export const severityOf = (alert) => (KNOWN_SEVERITIES.includes(alert.severity) ? alert.severity : "info");

export class AlertItem {
  // `act(action, id, argument)` does what a button says; `about(alert)` names the zone an alert is about.
  constructor(alert, act, about) {
    this.act = act;
    this.about = about;
    this.severity = element("span", { className: "severity" });
    this.text = element("h3", {});
    this.subject = element("span", { className: "subject" });
    this.since = element("time", {});
    this.state = element("span", { className: "state" });
    this.buttons = {
      acknowledge: this.button("acknowledge", () => this.do("acknowledge")),
      snooze: this.button("snooze", () => this.do("snooze")),
      comment: this.button("comment", () => this.toggleComment()),
    };
    this.buttons.acknowledge.classList.add("primary");
    this.more = this.button("details", () => this.toggleDetails());
    this.more.setAttribute("aria-expanded", "false");
    this.details = element("div", { className: "details", hidden: true });
    this.history = new History();
    this.form = null;
    this.actions = element("div", { className: "actions" }, ...Object.values(this.buttons));
    this.root = element("li", { className: "alert", data: { alertId: alert.id, alertRule: alert.rule } },
      element("div", { className: "alert-top" }, this.severity, this.since),
      this.text,
      element("p", { className: "alert-meta" }, this.subject, this.state, this.more),
      this.actions, this.details);
    this.change(alert);
  }

  button(action, press) {
    const button = element("button", { type: "button", textContent: words.say(action), data: { action } });
    button.addEventListener("click", press);
    return button;
  }

  change(alert) {
    this.alert = alert;
    const severity = severityOf(alert);
    if (this.root.dataset.severity !== severity) {
      this.root.dataset.severity = severity;
      this.severity.replaceChildren(icon(severity), words.say(severity));
    }
    if (this.root.dataset.state !== alert.state) this.root.dataset.state = alert.state;
    const zone = this.about(alert);
    this.said = words.alertText(alert, zone);
    write(this.text, this.said);
    const kind = alert.subject?.kind;
    const id = String(alert.subject?.id ?? "");
    const name = kind === "zone" ? zone || words.readable(id) : id.length > 18 ? `${id.slice(0, 15)}…` : id;
    write(this.subject, [words.has(`kind_${kind}`) ? words.say(`kind_${kind}`) : kind, name].filter(Boolean).join(" "));
    this.subject.title = id;
    // Every open alert is active unless it says otherwise: only what differs is worth a word.
    write(this.state, alert.state === "active" && !alert.snoozed && !alert.suppressed ? "" : stateOf(alert));
    const open = alert.state !== "cleared";
    show(this.actions, open);
    show(this.buttons.acknowledge, alert.state === "active" || alert.state === "recovering");
    show(this.buttons.snooze, open && !alert.snoozed && !alert.suppressed);
    show(this.buttons.comment, open);
    if (!this.details.hidden) this.fillDetails();
    this.age();
  }

  age() {
    const { alert } = this;
    if (!this.details.hidden) this.history.tick();
    write(this.since, words.ago(alert.event_time ?? alert.raised_at));
    this.since.dateTime = alert.event_time ?? alert.raised_at ?? "";
    this.since.title = words.day(alert.event_time ?? alert.raised_at);
  }

  async do(action, argument) {
    const buttons = this.root.querySelectorAll("button");
    const [place, focused] = [this.root.parentNode, this.root.contains(document.activeElement)];
    for (const button of buttons) button.disabled = true;
    const done = await this.act(action, this.alert.id, argument);
    for (const button of buttons) button.disabled = false;
    // A disabled or hidden button drops the focus: someone at the keyboard goes on where they were.
    if (focused && place === this.root.parentNode && !this.root.contains(document.activeElement)) this.more.focus();
    return done;
  }

  toggleComment() {
    if (this.form) {
      this.form.remove();
      this.form = null;
      return;
    }
    const input = element("input", { maxLength: 500, required: true, placeholder: words.say("comment_label"), aria: { label: words.say("comment_label") } });
    const send = element("button", { type: "submit", className: "primary", textContent: words.say("send") });
    const cancel = element("button", { type: "button", textContent: words.say("cancel") });
    cancel.addEventListener("click", () => this.closeComment());
    this.form = element("form", { className: "comment" }, input, send, cancel);
    this.form.addEventListener("submit", async (event) => {
      event.preventDefault();
      const text = input.value.trim();
      if (text && (await this.do("comment", text))) this.closeComment();
    });
    this.form.addEventListener("keydown", (event) => event.key === "Escape" && this.closeComment());
    this.actions.after(this.form);
    input.focus();
  }

  closeComment() {
    this.form?.remove();
    this.form = null;
    this.buttons.comment.focus();
  }

  toggleDetails() {
    const opens = this.details.hidden;
    show(this.details, opens);
    this.more.setAttribute("aria-expanded", String(opens));
    if (opens) this.fillDetails();
  }

  fillDetails() {
    const { alert } = this;
    this.history.change(alert);
    const rows = [[words.say("rule"), alert.rule], [words.say("state"), stateOf(alert)], [words.say("event_time"), words.day(alert.event_time)], [words.say("raised_at"), words.day(alert.raised_at)]];
    const values = Object.entries(alert.values ?? {}).map(([name, value]) => [name, valueText(name, value)]);
    const causes = alert.causes ?? [];
    const more = causes.length - CAUSES_SHOWN;
    // An alert may change every second; what is selected or focused in its details should outlive that.
    const sign = JSON.stringify([rows, values, causes, alert.trace, alert.comments, alert.state]);
    if (this.sign === sign) return;
    this.sign = sign;
    const clear = alert.state === "cleared" ? null : this.button("clear", () => this.do("clear"));
    this.details.replaceChildren(...[
      figures(rows),
      values.length ? element("div", {}, element("h4", { textContent: words.say("values") }), figures(values)) : null,
      this.said !== alert.text && alert.text ? element("p", { className: "original", lang: "en", textContent: alert.text }) : null,
      this.history.root,
      stages(alert.trace),
      element("div", {}, element("h4", { textContent: words.say("causes") }), causes.length
        ? element("ul", { className: "causes" }, ...causes.slice(0, CAUSES_SHOWN).map((cause) => element("li", {}, element("code", { textContent: cause }))),
          more > 0 ? element("li", { textContent: words.say("more_causes", { n: more }) }) : null)
        : element("p", { className: "calm", textContent: words.say("no_causes") })),
      comments(alert.comments),
      clear,
    ].filter(Boolean));
  }
}

function stateOf(alert) {
  if (alert.snoozed && alert.state !== "cleared") {
    const until = typeof alert.snoozed === "string" ? alert.snoozed : alert.snoozed_until;
    return until ? words.say("snoozed_until", { time: words.hour(until) }) : words.say("snoozed");
  }
  if (alert.suppressed && alert.state !== "cleared") return words.say("suppressed");
  if (alert.state === "acknowledged" && alert.acknowledged_by) return words.say("acknowledged_by", { by: alert.acknowledged_by });
  return words.has(`state_${alert.state}`) ? words.say(`state_${alert.state}`) : String(alert.state ?? "");
}

function valueText(name, value) {
  if (typeof value === "number") return name === "share" ? words.percent(value) : words.decimal(value);
  if (value === null || value === undefined) return "–";
  if (typeof value === "string" && /_(at|time|start|end)$/.test(name)) return words.day(value);
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}

function figures(rows) {
  return element("dl", { className: "figures" }, ...rows.map(([name, value]) => element("div", {}, element("dt", { textContent: name }), element("dd", { textContent: value }))));
}

function comments(list) {
  if (!Array.isArray(list) || !list.length) return null;
  return element("div", {}, element("h4", { textContent: words.say("comments") }),
    element("ul", { className: "comments" }, ...list.map((one) => element("li", {
      textContent: typeof one === "string" ? one : [one.by, one.text].filter(Boolean).join(": "),
    }))));
}

function micros(value) {
  return value < 1000 ? `${words.number(value)} µs` : `${words.decimal(Math.round(value / 10) / 100)} ms`;
}

// Where the time went between the message and the alert, as a bar of its stages with their names below.
function stages(trace) {
  const whole = trace?.sent_us - (trace?.received_us ?? 0);
  if (!Number.isFinite(whole) || whole <= 0) return null;
  const parts = STAGES.map(([name, before]) => ({ name, from: trace[before] ?? 0, to: trace[`${name}_us`] ?? 0 })).filter((part) => part.to >= part.from);
  const bar = drawn("svg", { class: "stages", viewBox: "0 0 300 10", preserveAspectRatio: "none", "aria-hidden": "true" });
  let x = 0;
  for (const part of parts) {
    // A stage too short to be seen still gets a sliver: it happened.
    const width = Math.max(3, ((part.to - part.from) / whole) * (300 - 3 * parts.length) + 3);
    bar.append(drawn("rect", { class: `stage-${part.name}`, x, y: 0, width: Math.max(1, width - 1.5), height: 10 }));
    x += width;
  }
  return element("div", {}, element("h4", { textContent: `${words.say("stages")}: ${micros(whole)}` }), bar,
    element("p", { className: "legend" }, ...parts.map((part) => element("span", {},
      element("i", { className: `swatch stage-${part.name}`, aria: { hidden: "true" } }), `${words.say(`stage_${part.name}`)} ${micros(part.to - part.from)}`))));
}
