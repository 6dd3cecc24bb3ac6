// Puts what is known on the page. Texts go in as texts, never as markup; elements stay, so that focus and selection do.

import * as words from "/words.js";
import { plain } from "/state.js";

const element = (id) => document.getElementById(id);

/** Writes a text where it differs, so that nothing is read out twice. */
function put(target, text) {
  const node = typeof target === "string" ? element(target) : target;
  if (node.textContent !== text) node.textContent = text;
}

const TONES = {
  ready: "good", starting: "busy", online: "busy", draining: "quiet", stopping: "quiet",
  suspect: "warn", stuck: "warn", frozen: "warn", hung: "bad", crashing: "bad", vacant: "bad",
};

export function head(state) {
  const { status } = state;
  const ready = status.workers.filter((worker) => worker.state === "ready").length;
  document.title = `${ready}/${status.target} ${plain(status.name)} – phalanx`;
  put("name", plain(status.name));
  put("ready", status.stopping ? "stopping" : `${ready} of ${status.target} ready`);
  element("ready").dataset.tone = ready >= status.target && !status.stopping ? "good" : "warn";
  const where = status.listeners.map((one) => plain(one.address)).join(", ") || "nowhere yet";
  const up = state.metrics?.up_seconds != null ? ` · up ${words.span(state.metrics.up_seconds)}` : "";
  put("where", `${where} · generation ${status.generation} · dispatch ${plain(status.dispatch)}${up}`);
  put("target", String(status.target));
  element("fewer").disabled = status.target === 0;
  element("rollback").disabled = status.previous == null && !status.reloading;
  const policy = element("policy");
  if (document.activeElement !== policy && policy.value !== status.policy) {
    if (![...policy.options].some((option) => option.value === status.policy)) policy.add(new Option(plain(status.policy), status.policy));
    policy.value = status.policy;
  }
}

export function tiles(state) {
  const { status, metrics, total } = state;
  put("rate-name", total.isRequests ? "Requests a second" : "Connections a second");
  put("rate-head", total.isRequests ? "Requests/s" : "Connections/s");
  put("rate", words.rate(total.rate));
  const all = total.isRequests ? status.totals?.requests : status.totals?.connections;
  put("rate-all", all == null ? "" : `${all} in all`);
  trend(element("rate-trend"), total.trend);
  const worst = (name) => {
    const known = state.rows.map((row) => row[name]).filter((value) => value != null);
    return known.length > 0 ? Math.max(...known) : null;
  };
  const sum = (name) => {
    const known = state.rows.map((row) => row[name]).filter((value) => value != null);
    return known.length > 0 ? known.reduce((all, one) => all + one, 0) : null;
  };
  put("p99", words.micros(worst("p99")));
  put("p50", worst("p50") == null ? "response time" : `p50 ${words.micros(worst("p50"))}`);
  put("cpu", words.percent(sum("cpu")));
  put("memory", words.bytes(sum("memory")));
  put("restarts", String(state.rows.reduce((all, row) => all + row.restarts, 0)));
  const happened = Object.entries(metrics?.restarts ?? {}).filter(([, count]) => count > 0);
  const reasons = happened.map(([reason, count]) => `${plain(reason)} ${count}`);
  put("restarts-why", reasons.join(", ") || "after crashes");
  put("lag", `${status.primary.loop_lag_p99_ms.toFixed(1)} ms`);
  put("primary", `lag · ${words.bytes(status.primary.memory_bytes)}`);
}

/** Draws samples as a line with its area. */
function trend(svg, samples) {
  const greatest = Math.max(...samples, 1e-9);
  const step = 100 / Math.max(samples.length - 1, 1);
  const points = samples.map((sample, at) => `${(at * step).toFixed(2)},${(29 - (27 * sample) / greatest).toFixed(2)}`);
  const line = points.length > 1 ? `M${points.join("L")}` : "";
  svg.querySelector(".line").setAttribute("d", line);
  svg.querySelector(".area").setAttribute("d", line ? `${line}L100,30L0,30Z` : "");
}

const made = new Map();

function make(tag, className, ...children) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  node.append(...children);
  return node;
}

function makeTrend() {
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  svg.setAttribute("viewBox", "0 0 100 30");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("class", "trend");
  svg.setAttribute("aria-hidden", "true");
  for (const name of ["area", "line"]) {
    const path = document.createElementNS(space, "path");
    path.setAttribute("class", name);
    svg.append(path);
  }
  return svg;
}

function makeRow(replace) {
  const parts = {
    position: make("b", "position"), state: make("span", "pill"), about: make("small", "quiet"), why: make("small", "why"),
    bar: make("i"), share: make("span"), rate: make("span"), trend: makeTrend(),
    button: make("button", "small"),
  };
  const cell = (key, label, className, ...children) => {
    const node = make("td", className, ...children);
    node.dataset.key = key;
    node.dataset.label = label;
    return node;
  };
  const name = make("th", "name", make("div", "line", parts.position, parts.state), parts.about, parts.why);
  name.scope = "row";
  parts.cells = {};
  for (const [key, label] of [["p50", "p50"], ["p99", "p99"], ["lag", "Loop lag"], ["cpu", "CPU"], ["memory", "Memory"], ["restarts", "Restarts"]]) {
    parts.cells[key] = cell(key, label, "n");
  }
  put(parts.button, "Replace");
  parts.row = make("tr", "", name,
    cell("share", "Share", "share", make("div", "bar", parts.bar), parts.share),
    cell("rate", "A second", "rate", parts.rate, parts.trend),
    ...Object.values(parts.cells), make("td", "act", parts.button));
  parts.button.addEventListener("click", () => replace(parts.of));
  return parts;
}

export function rows(state, flow, replace) {
  const body = element("rows");
  const kept = new Set(state.rows.map((row) => row.key));
  for (const [key, parts] of made) {
    if (!kept.has(key)) {
      parts.row.remove();
      made.delete(key);
    }
  }
  state.rows.forEach((row, at) => {
    if (!made.has(row.key)) made.set(row.key, makeRow(replace));
    const parts = made.get(row.key);
    if (body.children[at] !== parts.row) body.insertBefore(parts.row, body.children[at] ?? null);
    fill(parts, row);
  });
  const stage = body.closest(".stage");
  stage.classList.toggle("many", state.rows.length > 12);
  // A column that nothing is known for is left out.
  for (const key of ["share", "rate", "p50", "p99", "lag", "cpu", "memory"]) {
    stage.classList.toggle(`no-${key}`, state.rows.every((row) => row[key] == null));
  }
  flow.show(state.rows.map((row) => ({ element: made.get(row.key).row, rate: row.rate, share: row.share ?? 0, tone: toneOf(row) })));
}

function toneOf(row) {
  if (row.isNew) return "canary";
  const tone = TONES[row.state] ?? "quiet";
  if (tone === "bad" || tone === "quiet") return tone;
  return "accent";
}

function fill(parts, row) {
  const { worker } = row;
  parts.of = row;
  parts.row.dataset.state = row.state;
  parts.row.classList.toggle("canary", row.isNew);
  put(parts.position, String(row.position));
  put(parts.state, row.isNew && row.state === "ready" ? "new" : row.state);
  parts.state.dataset.tone = row.isNew ? "canary" : TONES[row.state] ?? "quiet";
  put(parts.about, worker ? [`worker ${worker.id}`, `gen ${worker.generation}`, worker.pid ? `pid ${worker.pid}` : "", row.says].filter(Boolean).join(" · ") : "");
  put(parts.why, row.why);
  parts.why.title = row.why;
  put(parts.share, words.percent(row.share, 1));
  parts.bar.style.width = `${(row.share ?? 0) * 100}%`;
  put(parts.rate, words.rate(row.rate));
  trend(parts.trend, row.trend);
  put(parts.cells.p50, words.micros(row.p50));
  put(parts.cells.p99, words.micros(row.p99));
  put(parts.cells.lag, words.micros(row.lag));
  put(parts.cells.cpu, words.percent(row.cpu));
  put(parts.cells.memory, words.bytes(row.memory));
  put(parts.cells.restarts, String(row.restarts));
  parts.cells.restarts.classList.toggle("some", row.restarts > 0);
  parts.button.hidden = !worker;
  parts.button.setAttribute("aria-label", worker ? `Replace worker ${worker.id} at position ${row.position}` : "");
}

export function rollout(state) {
  const { rollout } = state;
  const section = element("rollout");
  const isOn = rollout !== null || state.status.reloading;
  section.hidden = !isOn;
  if (!isOn) return;
  const one = rollout ?? { stage: "replacing", done: 0, of: 0, generation: state.status.generation, over: null, sides: null };
  put("rollout-title", `Reload to generation ${one.generation}`);
  section.dataset.tone = one.over == null ? (one.stage === "going back" ? "warn" : "busy") : one.isWell ? "good" : "warn";
  const said = {
    replacing: `${one.done} of ${one.of} replaced`,
    watching: `watching the first for ${words.span((one.elapsed ?? 0) / 1000)} of ${words.span((one.watch ?? 0) / 1000)}`,
    "going back": "failed: going back to the release before",
  }[one.stage];
  put("rollout-said", one.over == null ? said : one.isWell ? "serves" : "failed; the release before serves again");
  const bar = element("rollout-bar");
  const part = one.stage === "watching" ? one.elapsed / one.watch : one.of > 0 ? one.done / one.of : null;
  if (part == null) bar.removeAttribute("value");
  else bar.value = one.over != null ? 1 : part;
  element("sides").hidden = !one.sides;
  const slowest = Math.max(...(one.sides ?? []).map((side) => side?.p99_us ?? 0), 1);
  (one.sides ?? []).forEach((side, at) => {
    const cells = element("sides").querySelectorAll("tbody tr")[at].querySelectorAll("td");
    put(cells[0], String(side?.requests ?? 0));
    put(cells[1], String(side?.server_errors ?? 0));
    put(cells[2], words.micros(side?.p99_us));
    cells[3].firstElementChild.style.width = `${(100 * (side?.p99_us ?? 0)) / slowest}%`;
  });
}

export function log(state, hasSteps) {
  const lines = state.log.filter((line) => hasSteps || line.level !== "debug").slice(0, 120);
  if (lines.length === 0) return;
  const items = lines.map((line) => {
    const time = make("time", "", words.clock(line.time));
    time.dateTime = new Date(line.time).toISOString();
    const item = make("li", "", time, make("span", "", line.text));
    item.dataset.level = line.level;
    return item;
  });
  element("events").replaceChildren(...items);
}

/** The last lines that workers printed; nothing of an app that keeps none. */
export function output(lines) {
  const node = element("lines");
  const isAtEnd = node.scrollHeight - node.scrollTop - node.clientHeight < 24;
  const shown = (lines ?? []).filter((one) => one.line != null);
  const text = shown.map((one) => `${words.clock(one.time)} [${one.position}] ${plain(one.line)}`).join("\n");
  put(node, text || (lines ? "Nothing was printed yet." : "This app keeps no output."));
  if (isAtEnd) node.scrollTop = node.scrollHeight;
}

export function banner(text) {
  put("banner", text);
  element("banner").hidden = text === "";
  document.body.classList.toggle("lost", text !== "");
}

let fading = 0;

export function toast(text, isFault) {
  const node = element("toast");
  put(node, text);
  node.hidden = false;
  node.dataset.tone = isFault ? "bad" : "good";
  put("told", text);
  clearTimeout(fading);
  fading = setTimeout(() => (node.hidden = true), isFault ? 12_000 : 4_000);
}

export const tell = (text) => put("told", text);
