// A problem, in words, with what its service needs to find it again.
import { announce, h } from "./dom.js";

/** An element for a `Problem`, or for anything else that was thrown. */
export function problemBox(problem) {
  const title = problem.title || "Something went wrong on this page";
  const faults = (problem.errors || []).map((fault) => h("li", {}, h("code", {}, fault.pointer || "/"), ` ${fault.detail}`));
  const facts = [problem.code, problem.status || null, problem.requestId ? `request ${problem.requestId}` : null];
  const spans = facts.filter(Boolean).map((fact) => h("span", {}, String(fact)));
  return h(
    "div",
    { class: "problem" },
    h("strong", {}, title),
    problem.message && problem.message !== title ? h("p", {}, problem.message) : null,
    faults.length ? h("ul", {}, ...faults) : null,
    problem.retryAfter ? h("p", {}, `Try again in ${problem.retryAfter} s.`) : null,
    spans.length ? h("p", { class: "facts" }, ...spans) : null,
  );
}

/** Do `work`; what it throws is shown in `place`, which is empty otherwise. Tells whether it went well. */
export async function told(place, work) {
  place.replaceChildren();
  try {
    await work();
    return true;
  } catch (problem) {
    if (problem.status === undefined) console.error(problem);
    const box = problemBox(problem);
    announce(box.firstChild.textContent);
    place.replaceChildren(box);
    return false;
  }
}

/** The problem of a failed run, as `problemBox` takes it. */
export function problemIn(error) {
  return { ...error, title: error.title ?? "This run has failed", message: error.detail, requestId: error.request_id, retryAfter: error.retry_after };
}
