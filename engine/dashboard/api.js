// The API of the engine: lists in pages, actions on alerts, and the stream of what changes.

const BASE = "/api/v1";

// A list that never ends would never be shown: the page stops reading after this many pages.
const PAGES_MAX = 10;

// What the server said when it refused (RFC 9457), in words.
export class Refusal extends Error {
  constructor(status, problem) {
    super(problem?.detail || problem?.title || `HTTP ${status}`);
    this.status = status;
  }
}

async function ask(path, options) {
  const response = await fetch(BASE + path, { headers: { accept: "application/json" }, ...options });
  const body = await response.json().catch(() => null);
  if (!response.ok) throw new Refusal(response.status, body);
  return body;
}

async function all(path, parameters, pagesMax = PAGES_MAX) {
  const items = [];
  let after = null;
  for (let page = 0; page < pagesMax; page += 1) {
    const query = new URLSearchParams(parameters);
    if (after !== null) query.set("after", after);
    const answer = await ask(`${path}?${query}`);
    items.push(...(answer?.items ?? []));
    after = answer?.next ?? null;
    if (after === null) break;
  }
  return items;
}

export const zones = () => all("/zones", { limit: 500 });
export const seats = () => all("/seats", { limit: 1000 });
export const openAlerts = () => all("/alerts", { state: "open", limit: 200 });
export const clearedAlerts = () => all("/alerts", { state: "cleared", limit: 20 }, 1);

export const alert = (id) => ask(`/alerts/${encodeURIComponent(id)}`);

const lettersOf = (receiver) => `/receivers/${encodeURIComponent(receiver)}/dead-letters`;
export const deadLetters = (receiver) => all(lettersOf(receiver), { limit: 200 }, 1);
export const resend = (receiver, id) => ask(`${lettersOf(receiver)}/${encodeURIComponent(id)}/resend`, { method: "POST" });
export const resendAll = (receiver) => ask(`${lettersOf(receiver)}/resend`, { method: "POST" });

function act(id, action, body) {
  return ask(`/alerts/${encodeURIComponent(id)}/${action}`, {
    method: "POST",
    headers: { accept: "application/json", "content-type": "application/json" },
    body: JSON.stringify(body),
  });
}

export const acknowledge = (id, by) => act(id, "acknowledge", { by });
export const snooze = (id, minutes) => act(id, "snooze", { minutes });
export const clear = (id) => act(id, "clear", {});
export const comment = (id, text) => act(id, "comment", { text });

const RETRY_MS_MIN = 1000;
const RETRY_MS_MAX = 20000;

// Listens to the stream until the page goes away. `hears` has occupancy, alert, health, reset, lost and back.
export function listen(hears) {
  let retryMs = RETRY_MS_MIN;
  let connected = false;
  let lost = false;

  const read = (hear) => (message) => {
    let body;
    try {
      body = JSON.parse(message.data);
    } catch {
      return; // One unreadable message is no reason to stop listening.
    }
    hear(body);
  };

  const open = () => {
    const source = new EventSource(`${BASE}/stream`);
    source.addEventListener("open", () => {
      retryMs = RETRY_MS_MIN;
      if (lost) hears.back();
      else if (!connected) hears.connected();
      connected = true;
      lost = false;
    });
    source.addEventListener("error", () => {
      if (!lost) hears.lost();
      lost = true;
      // The browser tries again by itself unless the server answered with an error: then it gives up, and we don't.
      if (source.readyState === EventSource.CLOSED) {
        source.close();
        setTimeout(open, retryMs);
        retryMs = Math.min(retryMs * 2, RETRY_MS_MAX);
      }
    });
    source.addEventListener("occupancy", read(hears.occupancy));
    source.addEventListener("alert", read(hears.alert));
    source.addEventListener("health", read(hears.health));
    source.addEventListener("reset", () => hears.reset());
  };
  open();
}
