// Calls that wait for a person: a card for each, in a conversation and in the list of all.
import { call, callIfThere } from "./api.js";
import { $, h, when } from "./dom.js";
import { told } from "./problem.js";
import { wake } from "./sse.js";
import { legible, visible } from "./values.js";

const EVERY = 15000; // ms between looks while the page is in sight
const MAX_INPUT = 200; // characters of a question that the service lists
const OUTCOMES = { approve: "Approved.", approved: "Approved.", deny: "Denied.", denied: "Denied.", cancelled: "Stopped." };
const WHY = {
  unknown: "It is not known whether this call was made. May it be made (again)?",
  untrusted: "The model has read text that others wrote. May this call be made?",
};
const EFFECTS = { read: "Only reads", write: "Changes something", danger: "Changes something that must not go wrong" };
let role = "user"; // operators and admins decide; a user sees what waits
const listed = new Map(); // cards of the section, by id
let looks = 0; // grows with each look: an answer that comes late says nothing of what came since

/** {element, decided(how, words, said), over()}: the question, and the two answers to it. `said` is what `approval.decided` carries. `onDecided` is called after this page's own. */
export function approvalCard(approval, onDecided = () => {}) {
  const { id, name, arguments: given, reason, digest } = approval;
  const problem = h("div", { role: "alert" });
  const outcome = h("p", { class: "outcome", role: "status" });
  const decide = async (decision, comment) => {
    choice.disabled = true;
    const body = { decision, digest, ...(comment && { comment }) };
    let late = null;
    const done = await told(problem, async () => {
      try {
        await call("POST", `/v1/approvals/${encodeURIComponent(id)}`, body);
      } catch (failure) {
        if (failure.code !== "already_decided") throw failure;
        late = failure.message;
      }
    });
    choice.disabled = false;
    if (!done) return;
    card.decided(decision, late && `Your decision came too late. ${late}`);
    wake();
    onDecided();
  };
  const choice = role === "user" ? h("p", { class: "quiet undecided" }, "An operator decides.") : choices(id, decide);
  const element = h(
    "article",
    { class: "approval", "aria-label": `Approval of ${name}`, tabindex: "-1" },
    approval.agent ? asker(approval) : null,
    h("p", {}, h("code", { class: "call" }, name), " ", h("span", { class: "quiet" }, WHY[reason] ?? "May this call be made?")),
    legible(given),
    ...about(approval),
    approval.untrusted ? origin(approval.untrusted) : null,
    approval.agent ? places(approval) : null,
    choice,
    outcome,
    problem,
  );
  const card = {
    element,
    decided(how, words = null, { arguments: changed, comment } = {}) {
      choice.remove();
      const other = changed ? " The call was made with other arguments than these." : "";
      const why = comment ? h("span", { class: "quiet" }, " “", ...visible(comment), "”") : null;
      outcome.replaceChildren(words ?? OUTCOMES[how] ?? "Decided.", other, ...[why].filter(Boolean));
    },
    /** The run has ended: there is nothing to decide any more. */
    over() {
      if (choice.isConnected) card.decided("cancelled");
    },
  };
  return card;
}

/** The person who asked, the agent they asked, when, and the question. */
function asker({ username, agent, created_at: at, input }) {
  const cut = input?.length === MAX_INPUT ? "…" : "";
  const who = [h("strong", {}, username), " asked ", h("strong", {}, agent), " · ", when(at)];
  return h("div", { class: "asker" }, h("p", {}, ...who), input ? h("blockquote", {}, ...visible(input), cut) : null);
}

/** The model's words before the call, the tool's description, what is known of its effect, and the end. */
function about({ explanation, tool, expires_at: end }) {
  const effect = tool && `${EFFECTS[tool.risk] ?? tool.risk}; ${tool.idempotent ? "may be repeated." : "not to be repeated unseen."}`;
  return [
    explanation ? h("p", { class: "explanation" }, h("span", { class: "quiet" }, "The model: "), ...visible(explanation)) : null,
    tool ? h("p", { class: "quiet" }, ...visible(tool.description)) : null,
    effect || end ? h("p", { class: "facts" }, effect ? h("span", {}, effect) : null, end ? h("span", {}, "Denied after ", when(end)) : null) : null,
  ];
}

/** Where text that others wrote came from, and the arguments taken from it. */
function origin({ sources, pointers }) {
  const taken = pointers.length ? ["; taken from it: ", h("strong", {}, ...visible(pointers.join(", ")))] : [];
  return h("p", { class: "facts untrusted" }, "Text of others came from ", ...visible(sources.join(", ")), ...taken, ".");
}

/** Links to the conversation and the run. */
function places({ session_id: session, session_title: title, run_id: run }) {
  const talk = session && h("a", { href: `#chat/${session}` }, `Conversation: ${title || "Untitled"}`);
  return h("p", { class: "facts" }, talk || null, h("a", { href: `#runs/${run}` }, "Run so far"));
}

function choices(id, decide) {
  const comment = h("input", { id: `why-${id}`, placeholder: "Comment (optional)", maxlength: "1000" });
  return h(
    "fieldset",
    { class: "choice" },
    h("legend", { class: "unseen" }, "Decide"),
    h("label", { class: "unseen", for: comment.id }, "Comment"),
    comment,
    h("button", { class: "primary", type: "button", onclick: () => decide("approve", comment.value) }, "Approve"),
    h("button", { class: "danger", type: "button", onclick: () => decide("deny", comment.value) }, "Deny"),
  );
}

/** Look at what waits for the first time. `mine` is the caller's role. */
export async function startApprovals(mine) {
  role = mine;
  await refreshApprovals();
}

async function refreshApprovals() {
  const page = await callIfThere("GET", "/v1/approvals?status=pending&limit=100");
  const waiting = page?.data ?? [];
  $("tab-approvals").hidden = page === null || (role === "user" && !waiting.length);
  $("waiting").hidden = !waiting.length;
  $("waiting").textContent = `${waiting.length}${page?.next_cursor ? "+" : ""}`;
  return { waiting, isAll: !page?.next_cursor };
}

/** The section itself: drawn when it is entered, so that a comment being written is not lost. */
export async function showApprovals() {
  await told($("approvals-list"), async () => {
    const { waiting } = await refreshApprovals();
    looks += 1;
    listed.clear();
    $("approvals-list").replaceChildren(h("p", { class: "empty" }, "Nothing waits for a decision."));
    append(waiting);
  });
}

/** New ones come last, whatever their age: a button must not move away under a pointer. */
function append(waiting) {
  for (const approval of waiting.filter(({ id }) => !listed.has(id))) {
    const card = approvalCard(approval, () => next(card));
    listed.set(approval.id, card);
    $("approvals-list").append(card.element);
  }
}

/** After a decision: on to the next question, and to none of its buttons, which a second Enter would press. */
function next(card) {
  const open = [...listed.values()].filter((other) => other.element.querySelector(".choice"));
  const after = open.find((other) => card.element.compareDocumentPosition(other.element) & Node.DOCUMENT_POSITION_FOLLOWING);
  (after ?? open[0])?.element.focus();
  look();
}

/** Count again what waits; the next look tells what fails in this one. */
async function look() {
  const mine = (looks += 1);
  const found = await refreshApprovals().catch(() => null);
  if (!found || mine !== looks || $("approvals").hidden) return;
  append(found.waiting);
  if (found.isAll) settle(found.waiting);
}

/** A card that waits no more, and was not decided here, asks no more. */
function settle(waiting) {
  const ids = new Set(waiting.map(({ id }) => id));
  for (const [id, card] of listed) {
    if (!ids.has(id) && card.element.querySelector(".choice, .undecided")) card.decided(null, "Waits no more: decided by somebody else, or stopped.");
  }
}

setInterval(() => {
  if (document.visibilityState === "visible" && !$("tabs").hidden) look();
}, EVERY);
