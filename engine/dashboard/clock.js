// The engine's clock: event time, which in a replay is another day and runs at another speed than the wall's.

// Between two health messages the clock goes on by itself, but not further than this many of their intervals.
const RUN_ON_INTERVALS = 2;
const SAMPLES = 12;

let samples = [];

// Takes a health message's `now`. `at` is performance.now() in milliseconds.
export function heard(now, at) {
  const time = Date.parse(now);
  if (Number.isNaN(time)) return;
  const last = samples.at(-1);
  // A recording that starts again goes back: what was learnt about its speed is void.
  if (last && time < last.time) samples = [];
  samples.push({ time, at });
  if (samples.length > SAMPLES) samples.shift();
}

// How many seconds of event time pass in one second: 1 live, 60 in a replay at 60 times the speed, null when unknown.
export function speed() {
  const [first, last] = [samples[0], samples.at(-1)];
  if (samples.length < 4 || last.at - first.at < 2000) return null;
  return (last.time - first.time) / (last.at - first.at);
}

// Event time in epoch milliseconds; the wall's until the engine has said otherwise.
export function now() {
  const last = samples.at(-1);
  if (!last) return Date.now();
  const before = samples.at(-2);
  const interval = before ? last.at - before.at : 0;
  const elapsed = Math.min(performance.now() - last.at, interval * RUN_ON_INTERVALS);
  return last.time + elapsed * Math.min(Math.max(speed() ?? 1, 0), 3600);
}

export const known = () => samples.length > 0;
