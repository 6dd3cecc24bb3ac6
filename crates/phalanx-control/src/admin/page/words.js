// Figures in few letters.

export function micros(value) {
  if (value == null) return "–";
  if (value < 1_000) return `${value} µs`;
  if (value < 100_000) return `${(value / 1_000).toFixed(1)} ms`;
  if (value < 1_000_000) return `${Math.round(value / 1_000)} ms`;
  return `${(value / 1_000_000).toFixed(1)} s`;
}

export function rate(value) {
  if (value == null) return "–";
  if (value >= 1e6) return `${(value / 1e6).toFixed(1)} M`;
  if (value >= 1e4) return `${(value / 1e3).toFixed(1)} k`;
  if (value >= 10 || value === 0) return Math.round(value).toLocaleString("en");
  return value.toFixed(1);
}

export function bytes(value) {
  if (value == null) return "–";
  const mebibytes = value / 2 ** 20;
  return mebibytes < 1024 ? `${Math.round(mebibytes)} MB` : `${(mebibytes / 1024).toFixed(1)} GB`;
}

export const percent = (value, digits = 0) => (value == null ? "–" : `${(value * 100).toFixed(digits)} %`);

export function span(seconds) {
  const whole = Math.floor(seconds);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  if (whole < 86_400) return `${Math.floor(whole / 3600)} h ${Math.floor((whole / 60) % 60)} min`;
  return `${Math.floor(whole / 86_400)} d ${Math.floor((whole / 3600) % 24)} h`;
}

export const clock = (millis) => new Date(millis).toLocaleTimeString("en-GB");
