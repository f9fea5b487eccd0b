// Conversations that the service keeps. Where it has no such route, the page goes on without.
import { call, callIfThere } from "./api.js";
import { $, h, when } from "./dom.js";
import { told } from "./problem.js";

const KEPT = "slipway.session";
let there = false;
let ready = false;
let current = null;
let cursor = null;
let onOpen = () => {};

const path = (id) => `/v1/sessions/${encodeURIComponent(id)}`;
const problem = () => $("sessions-problem");
const isNarrow = () => matchMedia("(max-width: 56rem)").matches; // where the list is above the conversation

/** `open` is given a session with its messages, or null for a new conversation. */
export async function startSessions(open) {
  onOpen = open;
  ready = false;
  current = null;
  $("new-session").onclick = () => leave();
  $("more-sessions").onclick = () => told(problem(), () => load(cursor));
  await told(problem(), () => load(null));
  $("drawer").hidden = !there;
  $("drawer").open = !isNarrow();
  ready = true;
  const kept = sessionStorage.getItem(KEPT);
  if (there && kept) await told(problem(), () => reopen(kept));
}

/** The conversation that this tab had open; a new one where it is gone meanwhile. */
async function reopen(id) {
  try {
    await openSession(id);
  } catch (failure) {
    if (failure.status !== 404) throw failure;
    leave();
  }
}

/** The session the next turn belongs to: the open one, a new one, or null where there are none. */
export async function sessionFor(agent, question) {
  if (!there || current) return current?.id ?? null;
  const title = question.replace(/\s+/g, " ").slice(0, 60);
  remember(await call("POST", "/v1/sessions", { agent, title }));
  $("sessions").prepend(item(current));
  mark();
  return current.id;
}

/** Open the conversation that a link names. */
export function visit(id) {
  if (ready) return told(problem(), () => openSession(id));
  sessionStorage.setItem(KEPT, id); // the page has just been entered, and opens what is kept
}

/** Begin a new conversation. */
export function leave() {
  if (isNarrow()) $("drawer").open = false;
  remember(null);
  mark();
  onOpen(null);
}

async function load(before) {
  const page = await callIfThere("GET", `/v1/sessions?limit=20${before ? `&cursor=${encodeURIComponent(before)}` : ""}`);
  there = page !== null;
  if (!there) return;
  cursor = page.next_cursor;
  const items = page.data.map(item);
  if (before) $("sessions").append(...items);
  else $("sessions").replaceChildren(...items);
  $("more-sessions").hidden = !cursor;
  mark();
}

async function openSession(id) {
  const session = await call("GET", path(id));
  remember(session);
  mark();
  if (isNarrow()) $("drawer").open = false;
  await onOpen(session);
}

function remember(session) {
  current = session;
  if (session) sessionStorage.setItem(KEPT, session.id);
  else sessionStorage.removeItem(KEPT);
}

function mark() {
  for (const entry of $("sessions").children) {
    const isOpen = entry.dataset.id === current?.id;
    entry.classList.toggle("open", isOpen);
    entry.firstChild.setAttribute("aria-current", String(isOpen));
  }
}

function item(session) {
  const name = session.title || "Untitled";
  const title = h("span", { class: "title" }, name);
  const button = (text, label, work) =>
    h("button", { class: "plain icon", type: "button", "aria-label": `${label} ${title.textContent}`, title: label, onclick: work }, text);
  const entry = h(
    "li",
    { "data-id": session.id },
    h(
      "button",
      { class: "open-session", type: "button", onclick: () => told(problem(), () => openSession(session.id)) },
      title,
      h("span", { class: "quiet" }, `${session.agent ?? ""} `, when(session.updated_at ?? session.created_at)),
    ),
    button("✎", "Rename", () => rename(session, entry, title)),
    button("✕", "Delete", () => remove(session, entry, title)),
  );
  return entry;
}

function rename(session, entry, title) {
  const begun = entry.querySelector(".rename input");
  if (begun) return begun.focus();
  const input = h("input", { value: title.textContent, maxlength: "256", "aria-label": "New name" });
  const form = h("form", { class: "rename" }, input, h("button", { class: "primary soft", type: "submit" }, "Save"));
  form.onsubmit = async (event) => {
    event.preventDefault();
    const named = input.value.trim();
    if (named && !(await told(problem(), () => call("PATCH", path(session.id), { title: named })))) return;
    if (named) title.textContent = named;
    form.remove();
    entry.firstChild.focus();
  };
  form.onkeydown = (event) => {
    if (event.key !== "Escape") return;
    event.stopPropagation(); // it is for this form, and stops no run
    form.remove();
    entry.firstChild.focus();
  };
  entry.append(form);
  input.select();
}

async function remove(session, entry, title) {
  if (!confirm(`Delete “${title.textContent}” and everything in it?`)) return;
  if (!(await told(problem(), () => call("DELETE", path(session.id))))) return;
  entry.remove();
  if (current?.id === session.id) leave();
  $("new-session").focus();
}
