// The history of an alert: every step of its life, with when, what, who and why, the latest first.

import { element, write } from "./element.js";
import * as api from "./api.js";
import * as words from "./words.js";

export class History {
  constructor() {
    this.list = element("ol", { className: "history" });
    this.note = element("p", { className: "calm", role: "status", textContent: words.say("steps_reading") });
    this.root = element("div", { className: "history-box" }, element("h4", { textContent: words.say("steps") }), this.note, this.list);
    this.sign = null;
  }

  // Reads the steps anew when there is another one. An alert that only measures something else has none.
  async change(alert) {
    const sign = `${alert.id} ${alert.step?.number ?? ""}`;
    if (this.sign === sign) return;
    this.sign = sign;
    try {
      const { history = [], history_left_out: leftOut = 0 } = await api.alert(alert.id);
      // Another step may have come while this was read: the one that was asked for last counts.
      if (this.sign === sign) this.draw(history, leftOut);
    } catch (refusal) {
      if (this.sign !== sign) return;
      this.sign = null;
      this.say(words.say("steps_failed", { reason: refusal.message }));
    }
  }

  // Once a second: the time zone of the place may have come later than the steps.
  tick() {
    this.list.querySelectorAll("time").forEach(writeTime);
  }

  say(text) {
    write(this.note, text);
    this.note.hidden = text === "";
  }

  draw(steps, leftOut) {
    this.say(steps.length ? "" : words.say("steps_none"));
    const rows = steps.map((step) => row(step));
    // Those between the first and the second are no longer kept.
    if (leftOut > 0) rows.splice(1, 0, element("li", { className: "calm", textContent: words.say("steps_left_out", { n: leftOut }) }));
    this.list.replaceChildren(...rows.reverse());
  }
}

function row(step) {
  const note = noteOf(step);
  const time = element("time", { dateTime: step.at });
  writeTime(time);
  return element("li", { data: { what: step.what, why: step.why } },
    time,
    element("div", {},
      element("b", { textContent: words.say(`what_${step.what}`) }),
      note ? element("span", { textContent: ` ${note}` }) : null,
      element("small", { textContent: `${step.by === "usher" ? "Usher" : step.by} · ${words.say(`why_${step.why}`)}` })));
}

function writeTime(node) {
  write(node, words.clockTime(node.dateTime));
  node.title = words.day(node.dateTime);
}

// What belongs to a step, as people write it.
function noteOf({ what, note }) {
  if (what === "assigned") return note ?? words.say("assigned_nobody");
  if (!note) return "";
  if (what === "snoozed") return words.say("until", { time: words.hour(note) });
  if (what === "escalated") return words.say(note);
  if (what === "suppressed" || what === "unsuppressed") return words.has(`held_${note}`) ? words.say(`held_${note}`) : note;
  return note;
}
