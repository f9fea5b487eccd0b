// What a new conversation begins with: the agent that will be asked.
import { h } from "./dom.js";

/** Elements about an agent; without one, about there being none. */
export function welcome(agent) {
  if (!agent) return [h("h2", {}, "No agents"), h("p", {}, "There is no agent that you may use.")];
  return [h("h2", {}, agent.id), h("p", {}, agent.description), h("p", { class: "quiet" }, traits(agent))];
}

function traits({ pattern, tools, approvals }) {
  const parts = [`pattern ${pattern}`];
  if (tools.length) parts.push(`tools ${tools.join(", ")}`);
  if (approvals.length) parts.push(`asks before ${approvals.join(", ")}`);
  return parts.join(" · ");
}
