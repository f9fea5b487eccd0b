// The service as this page speaks to it: tokens, requests, and its problems (RFC 9457).

const KEPT = "slipway.refresh"; // in sessionStorage: it survives a reload, and ends with the tab
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

/** A refresh token is good for one use, so two requests at once must share it. */
function refresh() {
  refreshing ??= spendRefreshToken().finally(() => (refreshing = null));
  return refreshing;
}

async function spendRefreshToken() {
  const token = sessionStorage.getItem(KEPT);
  const response = token ? await send("POST", "/v1/auth/refresh", { token }) : null;
  if (response?.ok) return keep(await response.json());
  const problem = response ? await problemOf(response) : new Problem({ title: "Sign in first" }, 401);
  if (!problem.passing) forget();
  throw problem;
}

function keep(pair) {
  access = pair.access_token;
  sessionStorage.setItem(KEPT, pair.refresh_token);
}

function forget() {
  access = null;
  sessionStorage.removeItem(KEPT);
  onSignedOut();
}

/** `then` is called whenever nobody is signed in any more. */
export function whenSignedOut(then) {
  onSignedOut = then;
}

export async function signIn(username, password, workspace) {
  const response = await send("POST", "/v1/auth/login", { body: { username, password, workspace }, token: null });
  if (!response.ok) throw await problemOf(response);
  keep(await response.json());
}

/** Whether an earlier sign-in of this tab still holds. Throws a passing `Problem`. */
export async function restore() {
  if (!sessionStorage.getItem(KEPT)) return false;
  try {
    await refresh();
    return true;
  } catch (problem) {
    if (problem.passing) throw problem;
    return false;
  }
}

export async function signOut() {
  try {
    await open("POST", "/v1/auth/logout");
  } catch {
    // The page forgets its tokens either way; the service's own end by themselves.
  }
  forget();
}
