// Calls that wait for a person: a card for each, in a conversation and in the list of all.
import { call, callIfThere } from "./api.js";
import { $, h, when } from "./dom.js";
import { told } from "./problem.js";

const EVERY = 15000; // ms between looks while the page is in sight
const OUTCOMES = { approve: "Approved.", approved: "Approved.", deny: "Denied.", denied: "Denied.", cancelled: "Cancelled." };
let role = "user"; // operators and admins decide; a user sees what waits

/** {element, decided(how)}: the question, and the two answers to it. */
export function approvalCard({ id, name, arguments: given, agent, run_id: run, reason, created_at: asked }) {
  const comment = h("input", { id: `why-${id}`, placeholder: "Comment (optional)", maxlength: "1000" });
  const problem = h("div", { role: "alert" });
  const outcome = h("p", { class: "outcome", role: "status" });
  const decide = (decision) => async () => {
    buttons.forEach((button) => (button.disabled = true));
    const body = comment.value ? { decision, comment: comment.value } : { decision };
    const done = await told(problem, () => call("POST", `/v1/approvals/${encodeURIComponent(id)}`, body));
    if (done) card.decided(decision);
    else buttons.forEach((button) => (button.disabled = false));
  };
  const buttons = [
    h("button", { class: "primary", type: "button", onclick: decide("approve") }, "Approve"),
    h("button", { class: "danger", type: "button", onclick: decide("deny") }, "Deny"),
  ];
  const label = h("label", { class: "unseen", for: comment.id }, "Comment");
  const choice =
    role === "user"
      ? h("p", { class: "quiet" }, "An operator decides.")
      : h("div", { class: "choice" }, label, comment, ...buttons);
  const why = reason === "unknown" ? "It is not known whether this call was made. May it be made (again)?" : "May this call be made?";
  const about = [agent, run, when(asked)].filter(Boolean).map((fact) => h("span", {}, fact));
  const element = h(
    "article",
    { class: "approval", "aria-label": `Approval of ${name}` },
    h("p", {}, h("code", {}, name), " ", h("span", { class: "quiet" }, why)),
    h("pre", { tabindex: "0" }, JSON.stringify(given, null, 2)),
    about.length ? h("p", { class: "facts" }, ...about) : null,
    choice,
    outcome,
    problem,
  );
  const card = {
    element,
    decided(how = "decided") {
      choice.remove();
      outcome.textContent = OUTCOMES[how] ?? "Decided.";
    },
  };
  return card;
}

/** Look at what waits for the first time. `mine` is the caller's role. */
export async function startApprovals(mine) {
  role = mine;
  await refreshApprovals();
}

export async function refreshApprovals() {
  const page = await callIfThere("GET", "/v1/approvals?status=pending&limit=100");
  const waiting = page?.data ?? [];
  $("tab-approvals").hidden = page === null || (role === "user" && !waiting.length);
  $("waiting").hidden = !waiting.length;
  $("waiting").textContent = `${waiting.length}${page?.next_cursor ? "+" : ""}`;
  return waiting;
}

/** The section itself: drawn when it is entered, so that a comment being written is not lost. */
export async function showApprovals() {
  await told($("approvals-list"), async () => {
    const waiting = await refreshApprovals();
    const cards = waiting.map((approval) => approvalCard(approval).element);
    $("approvals-list").replaceChildren(...(cards.length ? cards : [h("p", { class: "empty" }, "Nothing waits for a decision.")]));
  });
}

setInterval(() => {
  if (document.visibilityState !== "visible" || $("tabs").hidden) return;
  refreshApprovals().catch(() => {}); // the next look, or whatever the person does next, will tell
}, EVERY);
