// What was spent, and what is left.
import { callIfThere } from "./api.js";
import { $, count, dollars, h } from "./dom.js";
import { told } from "./problem.js";

const COLUMNS = [
  ["calls", "Calls"],
  ["input_tokens", "Tokens in"],
  ["output_tokens", "Tokens out"],
  ["cache_read_input_tokens", "From cache"],
  ["cost_usd", "Cost"],
  ["prompt_cache_savings_usd", "Saved by prompt cache"],
  ["hits", "Cache hits"],
];
const PERIOD = { day: "today", month: "this month", total: "in all" };

/** Show the section's tab only where the service has what it shows. */
export async function startUsage() {
  const [usage, budget] = await Promise.all([look("/v1/usage?group_by=day"), look("/v1/budget")]);
  $("tab-usage").hidden = usage === null && budget === null;
}

const look = (path) => callIfThere("GET", path).catch(() => null);

export function showUsage() {
  $("usage-table").replaceChildren();
  return told($("budget"), async () => {
    const budget = await callIfThere("GET", "/v1/budget");
    const usage = await callIfThere("GET", "/v1/usage?group_by=day");
    $("budget").replaceChildren(...(budget?.data ?? (budget ? [budget] : [])).map(cap));
    if (usage) $("usage-table").replaceChildren(table(usage.data));
  });
}

function cap({ scope, period, amount_usd: amount, spent_usd: spent = "0", reserved_usd: held = "0", left_usd: left }) {
  const whose = scope?.startsWith("user:") ? "You" : (scope ?? "Budget");
  const name = `${whose} ${PERIOD[period] ?? period ?? ""}`.trim();
  const taken = Number(spent) + Number(held);
  const bar = amount && h("meter", { min: 0, max: amount, high: 0.8 * amount, optimum: 0, value: taken, "aria-label": name });
  const facts = [`${dollars(spent)} spent`, Number(held) ? `${dollars(held)} reserved` : null, left && `${dollars(left)} left`];
  return h(
    "div",
    { class: "cap" },
    h("p", {}, h("strong", {}, name), " ", amount ? `of ${dollars(amount)}` : "without a cap"),
    bar || null,
    h("p", { class: "quiet" }, facts.filter(Boolean).join(" · ")),
  );
}

function table(rows) {
  if (!rows.length) return h("p", { class: "empty" }, "Nothing used yet.");
  const columns = COLUMNS.filter(([name]) => rows.some((row) => row[name] !== undefined));
  const show = (name, value) => (value === undefined ? "" : name.endsWith("_usd") ? dollars(value) : count(value));
  const head = h("tr", {}, h("th", { scope: "col" }, "Day"), ...columns.map(([, title]) => h("th", { scope: "col", class: "number" }, title)));
  const body = rows.map((row) =>
    h("tr", {}, h("th", { scope: "row" }, row.day ?? ""), ...columns.map(([name]) => h("td", { class: "number" }, show(name, row[name])))),
  );
  return h("div", { class: "scroll", role: "group", "aria-label": "Usage by day", tabindex: "0" }, h("table", {}, h("thead", {}, head), h("tbody", {}, ...body)));
}
