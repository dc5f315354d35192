// Deliveries: who is told of alerts, what waits for each, and what one would not take, with a way to send it again.

import { arrange, element, icon, show, write } from "./element.js";
import { severityOf } from "./alert.js";
import * as api from "./api.js";
import * as words from "./words.js";

// Often enough to see a step go, while somebody looks.
const LOOK_MS = 2000;

const STATES = ["closed", "open", "half-open"];

export class Deliveries {
  // `about(alert)` names the zone an alert is about.
  constructor(list, dialog, toast, about) {
    this.list = list;
    this.dialog = dialog;
    this.toast = toast;
    this.about = about;
    this.rows = new Map();
    this.receivers = [];
    this.name = null;
    dialog.addEventListener("click", (event) => {
      if (event.target === dialog) dialog.close(); // A click beside the panel lands on the dialog itself.
    });
    dialog.addEventListener("close", () => {
      this.name = null;
      clearTimeout(this.again);
      // What opened it lies in a box that has closed.
      document.getElementById("health-button").focus();
    });
  }

  // Takes where all receivers stand. What is focused outlives that.
  change(receivers) {
    this.receivers = receivers;
    const nodes = receivers.map((receiver) => {
      let row = this.rows.get(receiver.name);
      if (!row) this.rows.set(receiver.name, row = new Row(receiver.name, () => this.open(receiver.name)));
      row.change(receiver);
      return row.root;
    });
    arrange(this.list, nodes.length ? nodes : [element("li", { className: "calm", textContent: words.say("receivers_none") })]);
  }

  // Draws everything anew: in another language.
  rebuild() {
    this.rows.clear();
    this.change(this.receivers);
    if (this.name !== null) this.open(this.name);
  }

  open(name) {
    this.name = name;
    this.letters = new Map();
    const close = element("button", { type: "button", className: "close", aria: { label: words.say("close") } }, icon("close"));
    close.addEventListener("click", () => this.dialog.close());
    this.all = element("button", { type: "button", className: "primary", textContent: words.say("resend_all"), data: { action: "resend-all" } });
    this.all.addEventListener("click", () => this.resend(this.all, () => api.resendAll(name)));
    this.none = element("p", { className: "calm", role: "status", textContent: words.say("letters_reading") });
    this.letterList = element("ul", { className: "letters" });
    this.dialog.replaceChildren(
      element("header", {}, element("div", {}, element("p", { className: "over", textContent: words.say("letters") }),
        element("h2", { id: "letters-title", textContent: name })), close),
      element("p", { className: "letters-note", textContent: words.say("letters_note") }),
      this.all, this.none, this.letterList);
    if (!this.dialog.open) this.dialog.showModal();
    this.read();
  }

  async read() {
    clearTimeout(this.again);
    const { name } = this;
    try {
      const letters = await api.deadLetters(name);
      if (this.name !== name) return;
      this.draw(letters);
    } catch (refusal) {
      if (this.name !== name) return;
      write(this.none, words.say("load_failed", { reason: refusal.message }));
      show(this.none, true);
    }
    this.again = setTimeout(() => this.read(), LOOK_MS);
  }

  draw(letters) {
    show(this.none, letters.length === 0);
    write(this.none, words.say("letters_none"));
    show(this.all, letters.some((letter) => !letter.resent));
    const focused = this.letterList.contains(document.activeElement);
    arrange(this.letterList, letters.map((letter) => {
      let drawn = this.letters.get(letter.id);
      if (!drawn) this.letters.set(letter.id, drawn = this.letter(letter));
      show(drawn.button, !letter.resent);
      show(drawn.under, letter.resent);
      write(drawn.tries, `${drawn.what} · ${words.say("letter_tries", { n: letter.tries })}`);
      write(drawn.reason, letter.reason);
      return drawn.root;
    }));
    // Its row is gone, or its button: someone at the keyboard goes on from the nearest thing there is.
    const lost = focused && (!document.activeElement || document.activeElement === document.body || document.activeElement.hidden);
    if (lost) (this.letterList.querySelector("button:not([hidden])") ?? this.dialog.querySelector(".close")).focus();
  }

  letter({ id, alert: ofAlert, message, dead_at: deadAt }) {
    // A message to a person is shown by its words alone.
    const alert = ofAlert ?? {
      rule: message.rule, site: message.site, severity: "info", state: "active", values: {}, text: message.text.en,
      subject: { kind: "person", id: message.person },
    };
    const severity = severityOf(alert);
    const button = element("button", { type: "button", textContent: words.say("resend"), data: { action: "resend" } });
    button.addEventListener("click", () => this.resend(button, () => api.resend(this.name, id)));
    const under = element("span", { className: "calm", textContent: words.say("letter_resent"), hidden: true });
    const tries = element("span", {});
    const reason = element("p", { className: "reason", lang: "en" });
    const what = alert.step ? words.say(`what_${alert.step.what}`) : words.say(`state_${alert.state}`);
    const root = element("li", { data: { letter: id, severity } },
      element("div", { className: "alert-top" }, element("span", { className: "severity" }, icon(severity), words.say(severity)),
        element("time", { dateTime: deadAt, title: words.day(deadAt), textContent: words.day(deadAt) })),
      element("h3", { textContent: words.alertText(alert, this.about(alert)) }),
      element("p", { className: "alert-meta" }, tries),
      reason,
      element("div", { className: "actions" }, button, under));
    return { root, button, under, what, tries, reason };
  }

  async resend(button, order) {
    button.disabled = true;
    try {
      const { resent = 0 } = await order();
      this.toast(words.say("resent", { n: resent }));
    } catch (refusal) {
      this.toast(words.say("action_failed", { reason: refusal.message }));
    }
    button.disabled = false;
    if (this.name !== null) await this.read();
  }
}

// One receiver: its breaker, what waits, and what it would not take.
class Row {
  constructor(name, open) {
    this.state = element("span", {});
    this.address = element("small", {});
    this.figures = element("small", {});
    this.error = element("small", { className: "error", lang: "en" });
    this.button = element("button", { type: "button", className: "more-letters", data: { action: "letters" } });
    this.button.addEventListener("click", open);
    this.root = element("li", { data: { receiver: name } },
      element("b", { textContent: name }), this.state, this.address, this.figures, this.error, this.button);
  }

  change(receiver) {
    const state = STATES.includes(receiver.state) ? receiver.state : "open";
    const connected = String(state === "closed");
    if (this.root.dataset.connected !== connected) this.root.dataset.connected = connected;
    write(this.state, words.say(`breaker_${state}`));
    this.state.title = receiver.words ?? "";
    write(this.address, receiver.address ?? "");
    const since = receiver.waiting > 0 && receiver.waiting_since ? words.say("waiting_since", { time: words.hour(receiver.waiting_since) }) : "";
    const parts = [
      words.say("receiver_waiting", { n: receiver.waiting }) + since,
      words.say("receiver_sent", { n: receiver.sent }),
      receiver.lost > 0 ? words.say("receiver_lost", { n: receiver.lost }) : "",
    ];
    write(this.figures, parts.filter(Boolean).join(" · "));
    write(this.error, state === "closed" ? "" : receiver.last_error ?? "");
    show(this.error, this.error.textContent !== "");
    show(this.button, receiver.dead > 0);
    write(this.button, words.say("receiver_dead", { n: receiver.dead }));
  }
}
