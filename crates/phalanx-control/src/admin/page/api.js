// The control API of this page's own origin: requests with the token, where one is needed, and the stream of events.

const KEPT = "phalanx-token";
let token = sessionStorage.getItem(KEPT) ?? "";

// A link may carry the token behind its #, which no server sees; it does not stay in the address.
const carried = new URLSearchParams(location.hash.slice(1)).get("token");
if (carried) {
  token = carried;
  sessionStorage.setItem(KEPT, token);
  history.replaceState(null, "", location.pathname);
}

export class NeedsToken extends Error {}

/** Whether a token was tried already. */
export const hasToken = () => token !== "";

export function useToken(text) {
  token = text.trim();
  sessionStorage.setItem(KEPT, token);
}

async function ask(path, options = {}) {
  const headers = { accept: "application/json", ...options.headers };
  if (token) headers.authorization = `Bearer ${token}`;
  const response = await fetch(path, { ...options, headers, cache: "no-store", credentials: "omit" });
  if (response.status === 401) throw new NeedsToken("the token is missing or wrong");
  return response;
}

async function answer(response) {
  const body = await response.json();
  if (!response.ok) throw new Error(body?.error?.reason ?? `status ${response.status}`);
  return body;
}

export const get = async (path) => answer(await ask(path, { signal: AbortSignal.timeout(10_000) }));

/** The objects of an answer that has one a line. */
export async function lines(path) {
  const response = await ask(path, { signal: AbortSignal.timeout(10_000) });
  if (!response.ok) return null;
  return (await response.text()).split("\n").filter(Boolean).map((line) => JSON.parse(line));
}

export const post = async (path, body) =>
  answer(await ask(path, { method: "POST", body: JSON.stringify(body), headers: { "content-type": "application/json" } }));

/** Calls `take` with each event until the stream ends. A stream by fetch, since EventSource can send no token. */
export async function events(take, opened) {
  const response = await ask("/v1/events", { headers: { accept: "text/event-stream" } });
  if (!response.ok) throw new Error(`status ${response.status}`);
  opened();
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      if (line.startsWith("data:")) take(JSON.parse(line.slice(5)));
    }
  }
}
