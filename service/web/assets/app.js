// The page: who is signed in, and which section is shown.
import { call, restore, signIn, signOut, whenSignedOut } from "./api.js";
import { showApprovals, startApprovals } from "./approvals.js";
import { startChat, stopChat } from "./chat.js";
import { $, announce, h } from "./dom.js";
import { problemBox, told } from "./problem.js";
import { showRuns, stopRuns } from "./runs.js";
import { visit } from "./sessions.js";
import { showUsage, startUsage } from "./usage.js";

// A section, and what shows it; an id in the address (`#runs/run_…`) names one thing in it.
const SECTIONS = { chat: showConversation, approvals: showApprovals, runs: showRuns, usage: showUsage };
// Why a sign-in with SSO failed, as `#sign-in-failed=…` says.
const FAILED = {
  expired: "The sign-in took too long, or was begun elsewhere. Try again.",
  refused: "You are not signed in: this service does not let you in. Ask whoever runs it.",
  unavailable: "The identity provider cannot be reached. Try again in a moment.",
};
let me = null;

function showConversation(id) {
  if (!id) return;
  visit(id);
  history.replaceState(null, "", "#chat"); // a reload shows the conversation that is open then
}

function showSection() {
  if (!me) return;
  const [wanted, id] = location.hash.slice(1).split("/");
  const shown = Object.keys(SECTIONS).find((section) => !$(section).hidden);
  if (shown && !Object.hasOwn(SECTIONS, wanted)) return; // the skip link, which is for the section that is shown
  const name = Object.hasOwn(SECTIONS, wanted) ? wanted : "chat";
  for (const section of Object.keys(SECTIONS)) $(section).hidden = section !== name;
  for (const tab of $("tabs").querySelectorAll("a")) {
    if (tab.hash === `#${name}`) tab.setAttribute("aria-current", "page");
    else tab.removeAttribute("aria-current");
  }
  document.body.classList.toggle("chatting", name === "chat");
  SECTIONS[name](id);
}

/** The workspace that the page's address names, as `/?workspace=acme`. */
const workspaceOf = (address) => new URLSearchParams(address.search).get("workspace") ?? undefined;

function frame(isSignedIn) {
  $("sign-in").hidden = isSignedIn;
  for (const id of ["tabs", "who", "sign-out"]) $(id).hidden = !isSignedIn;
  document.body.classList.toggle("chatting", isSignedIn);
}

async function enter() {
  me = await call("GET", "/v1/auth/me");
  $("who").textContent = me.username;
  $("who").title = `${me.username} (${me.role})`;
  frame(true);
  showSection();
  announce(`Signed in as ${me.username}.`);
  await told($("trouble"), async () => {
    await Promise.all([startApprovals(me.role), startUsage(), startChat(me)]);
    $("question").focus();
  });
}

/** Nobody is signed in: because of that button, or because the sign-in has ended by itself. */
function leave() {
  if (me) $("sign-in-problem").replaceChildren(h("p", { class: "notice" }, "Your sign-in has ended. Sign in again."));
  me = null;
  stopChat();
  $("question").value = "";
  stopRuns();
  for (const section of Object.keys(SECTIONS)) $(section).hidden = true;
  $("trouble").replaceChildren();
  frame(false);
  $("username").focus();
}

/** Say why a sign-in with SSO failed; a reload does not say it again. */
function showFailure() {
  const [name, reason] = location.hash.slice(1).split("=");
  if (name !== "sign-in-failed" || !Object.hasOwn(FAILED, reason)) return;
  history.replaceState(null, "", "/");
  $("sign-in-problem").replaceChildren(h("p", { class: "notice" }, FAILED[reason]));
}

$("sign-in-form").onsubmit = async (event) => {
  event.preventDefault();
  const button = event.submitter ?? $("sign-in-form").querySelector("button");
  button.disabled = true;
  const done = await told($("sign-in-problem"), async () => {
    await signIn($("username").value, $("password").value, workspaceOf(location));
    $("password").value = "";
    await enter();
  });
  button.disabled = false;
  if (!done) $("password").select();
};

$("sign-out").onclick = async () => {
  await signOut();
  sessionStorage.clear();
  location.reload(); // nothing of what was shown stays in the page
};
addEventListener("hashchange", showSection);
whenSignedOut(leave);

try {
  if (await restore()) await enter();
  else leave();
  showFailure();
} catch (problem) {
  const again = h("button", { class: "primary", type: "button", onclick: () => location.reload() }, "Try again");
  $("trouble").replaceChildren(problemBox(problem), again);
}
