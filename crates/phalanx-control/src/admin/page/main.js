// The page: asks once a second while it is seen, hears the events, and carries out what is asked of it.

import * as api from "/api.js";
import { Flow } from "/flow.js";
import { State } from "/state.js";
import * as view from "/view.js";

const EVERY_MS = 1_000;
const POLICIES = ["round-robin", "least-connections", "fastest", "power-of-two", "source-hash", "random", "none"];

const element = (id) => document.getElementById(id);
const wait = (time) => new Promise((resume) => setTimeout(resume, time));
const state = new State();
const flow = new Flow(element("flow"));
let hasMetrics = true;
let failures = 0;
let asking = null;

// --- asking ---

async function look() {
  const [status, metrics] = await Promise.all([
    api.get("/v1/status"),
    hasMetrics ? api.get("/v1/metrics.json").catch(unlessToken) : null,
  ]);
  // A primary that gives none is not asked again.
  hasMetrics = metrics !== null;
  state.take(status, metrics, Date.now());
  view.head(state);
  view.tiles(state);
  view.rows(state, flow, replace);
  view.rollout(state);
  document.body.dataset.live = "yes";
  if (element("output").open) view.output(await api.lines("/v1/logs?lines=200"));
}

function unlessToken(error) {
  if (error instanceof api.NeedsToken) throw error;
  return null;
}

async function keepLooking() {
  for (;;) {
    try {
      if (!document.hidden) await look();
      if (failures > 0) view.banner("");
      failures = 0;
    } catch (error) {
      if (error instanceof api.NeedsToken) await askForToken();
      else if (++failures > 1) view.banner(`The primary does not answer (${error.message}). Asking again.`);
    }
    await wait(EVERY_MS);
  }
}

async function keepHearing() {
  for (;;) {
    try {
      await api.events(hear, () => {});
    } catch (error) {
      if (error instanceof api.NeedsToken) await askForToken();
    }
    await wait(EVERY_MS);
  }
}

let isLogStale = false;

function hear(event) {
  const line = state.hear(event, Date.now());
  if (line && line.level !== "debug") view.tell(line.text);
  if (isLogStale) return;
  // A flood of events is one drawing.
  isLogStale = true;
  requestAnimationFrame(() => {
    isLogStale = false;
    view.log(state, element("steps").checked);
    if (state.status) view.rollout(state);
  });
}

function askForToken() {
  asking ??= new Promise((done) => {
    element("ask-wrong").hidden = !api.hasToken();
    element("ask").showModal();
    element("ask").addEventListener("close", () => {
      api.useToken(element("token").value);
      element("token").value = "";
      asking = null;
      done();
    }, { once: true });
  });
  return asking;
}

// --- acting ---

async function act(what, path, body) {
  view.toast(`${what} …`, false);
  try {
    await api.post(path, body);
    view.toast(`${what}: done`, false);
  } catch (error) {
    view.toast(`${what}: ${error.message}`, true);
  }
}

/** Asks whether that is meant; resolves to the answer. */
function sure(title, text, yes, hasCanary = false) {
  element("sure-title").textContent = title;
  element("sure-text").textContent = text;
  element("sure-yes").textContent = yes;
  element("sure-canary").hidden = !hasCanary;
  element("canary").checked = false;
  const dialog = element("sure");
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((answer) => {
    dialog.addEventListener("close", () => answer(dialog.returnValue === "yes"), { once: true });
  });
}

const name = () => state.status?.name ?? "the app";

async function reload() {
  const text = "Each worker is replaced by one of the new release, and finishes what it has begun. No request is lost.";
  if (!(await sure(`Reload ${name()}?`, text, "Reload", true))) return;
  const isCanary = element("canary").checked;
  await act("Reload", "/v1/reload", isCanary ? { canary: 1 } : {});
}

async function rollback() {
  const text = "The workers of the release before come back, one after the other.";
  if (await sure(`Roll ${name()} back?`, text, "Roll back")) await act("Roll back", "/v1/rollback", {});
}

async function replace(row) {
  const text = "It finishes what it has begun, and another takes its place.";
  if (!(await sure(`Replace worker ${row.worker.id}?`, text, "Replace"))) return;
  await act(`Replace worker ${row.worker.id}`, "/v1/recycle", { workers: [row.worker.id] });
}

async function scale(by) {
  const target = state.status?.target ?? 0;
  if (by < 0 && target <= 1 && !(await sure("Take the last worker away?", "Nobody serves then.", "Take it away"))) return;
  await act(by > 0 ? "One worker more" : "One worker fewer", "/v1/scale", { workers: by > 0 ? "+1" : "-1" });
}

function changePolicy() {
  const policy = element("policy").value;
  if (policy !== state.status?.policy) act(`Policy ${policy}`, "/v1/policy", { policy });
}

function changeTheme() {
  const root = document.documentElement;
  const isDark = (root.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  root.dataset.theme = isDark ? "light" : "dark";
  localStorage.setItem("phalanx-theme", root.dataset.theme);
  flow.lay();
}

// --- the page ---

const theme = localStorage.getItem("phalanx-theme");
if (theme) document.documentElement.dataset.theme = theme;
for (const policy of POLICIES) element("policy").add(new Option(policy, policy));
const handlers = { reload, rollback, theme: changeTheme, help: () => element("keys").showModal(), more: () => scale(1), fewer: () => scale(-1) };
for (const [id, handler] of Object.entries(handlers)) element(id).addEventListener("click", handler);
element("policy").addEventListener("change", changePolicy);
element("output").addEventListener("toggle", () => look().catch(() => {}));
element("steps").addEventListener("change", () => view.log(state, element("steps").checked));

const keys = {
  r: reload, b: rollback, "+": () => scale(1), "-": () => scale(-1), d: changeTheme,
  p: () => element("policy").focus(), l: () => element("steps").click(), "?": () => element("keys").showModal(),
};
document.addEventListener("keydown", (event) => {
  const isTyping = event.target.closest("input, select, dialog");
  if (isTyping || event.ctrlKey || event.metaKey || event.altKey || event.repeat || !state.status) return;
  if (!Object.hasOwn(keys, event.key)) return;
  event.preventDefault();
  keys[event.key]();
});
document.addEventListener("visibilitychange", () => !document.hidden && look().catch(() => {}));
addEventListener("resize", () => flow.lay());

keepLooking();
keepHearing();
