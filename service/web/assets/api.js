// The service as this page speaks to it: tokens, requests, and its problems (RFC 9457).

// What another site's page cannot send. The refresh token is in a cookie, out of any script's reach.
const OWN = { "X-Slipway-Page": "1" };
const MAX_EVENTS = 20000; // of a run that are read at once
let access = null;
let refreshing = null;
let onSignedOut = () => {};

/** An answer that is not the one asked for. `status` is 0 when there was no answer at all. */
export class Problem extends Error {
  constructor(body, status, retryAfter = null) {
    super(body.detail || body.title || "Something went wrong");
    this.title = body.title || "Something went wrong";
    this.status = status;
    this.code = body.code || "";
    this.errors = body.errors || [];
    this.requestId = body.request_id || "";
    this.retryAfter = retryAfter ?? body.retry_after ?? null;
  }

  /** Whether the same request may well be answered a little later. */
  get passing() {
    return this.status === 0 || this.status === 429 || this.status >= 500;
  }
}

const unreachable = () =>
  new Problem({ title: "The service cannot be reached", detail: "Check the connection, then try again." }, 0);

async function problemOf(response) {
  let body = {};
  try {
    body = await response.json();
  } catch {
    body = { title: `The service answered ${response.status}` };
  }
  body.request_id ||= response.headers.get("X-Request-ID");
  return new Problem(body, response.status, response.headers.get("Retry-After"));
}

async function send(method, path, { body, headers = {}, signal, token = access } = {}) {
  const sent = { Accept: "application/json", ...headers };
  if (token) sent.Authorization = `Bearer ${token}`;
  if (body !== undefined) sent["Content-Type"] = "application/json";
  const text = body === undefined ? undefined : JSON.stringify(body);
  try {
    return await fetch(path, { method, headers: sent, body: text, signal, cache: "no-store" });
  } catch (error) {
    throw signal?.aborted ? error : unreachable();
  }
}

/** An answer as it comes, after one refresh where the access token is over. Throws `Problem`. */
export async function open(method, path, options = {}) {
  const used = access;
  let response = await send(method, path, options);
  if (response.status === 401) {
    if (access === used) await refresh();
    response = await send(method, path, options);
  }
  if (!response.ok) throw await problemOf(response);
  return response;
}

/** The JSON of an answer; null where there is none. Throws `Problem`. */
export async function call(method, path, body) {
  const headers = method === "POST" ? { "Idempotency-Key": newKey() } : {};
  const response = await open(method, path, { body, headers });
  return response.status === 204 ? null : response.json();
}

/** The same, and null where this service has no such route (yet), or not for this caller. */
export async function callIfThere(method, path) {
  try {
    return await call(method, path);
  } catch (problem) {
    if (problem.status === 404 || problem.status === 403) return null;
    throw problem;
  }
}

/** What a run has told so far, as [{event, data}]: page after page, up to a bound that no run of a person reaches. */
export async function keptEvents(runId) {
  const found = [];
  let cursor = null;
  do {
    const after = cursor ? `?cursor=${encodeURIComponent(cursor)}` : "";
    const page = await call("GET", `/v1/runs/${encodeURIComponent(runId)}/events${after}`);
    found.push(...page.data);
    cursor = page.next_cursor;
  } while (cursor && found.length < MAX_EVENTS);
  return found;
}

export function newKey() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** A refresh token is good for one use, so requests and tabs that want a new access token wait for each other. */
function refresh() {
  refreshing ??= inTurn(renew).finally(() => (refreshing = null));
  return refreshing;
}

function inTurn(work) {
  return navigator.locks ? navigator.locks.request("slipway.renew", work) : work(); // only over TLS, or locally
}

async function renew() {
  if (await askForToken("/page/renew")) return;
  forget();
  throw new Problem({ title: "Sign in first" }, 401);
}

/** False where nobody is signed in. Throws `Problem`. */
async function askForToken(path, body) {
  const response = await send("POST", path, { body, headers: OWN, token: null });
  if (response.status === 204) return false;
  if (!response.ok) {
    const problem = await problemOf(response);
    if (path === "/page/renew" && !problem.passing) forget();
    throw problem;
  }
  access = (await response.json()).access_token;
  return true;
}

function forget() {
  access = null;
  onSignedOut();
}

/** `then` is called whenever nobody is signed in any more. */
export function whenSignedOut(then) {
  onSignedOut = then;
}

export async function signIn(username, password, workspace) {
  await askForToken("/page/sign-in", { username, password, workspace });
}

/** Whether an earlier sign-in of this browser still holds. Throws a passing `Problem`. */
export async function restore() {
  try {
    return await inTurn(() => askForToken("/page/renew"));
  } catch (problem) {
    if (problem.passing) throw problem;
    return false;
  }
}

export async function signOut() {
  try {
    await send("POST", "/page/sign-out", { headers: OWN, token: null });
  } catch {
    // The page forgets its token either way; the service's own end by themselves.
  }
  forget();
}
