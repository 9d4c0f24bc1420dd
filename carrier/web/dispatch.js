// The dispatcher's page: decisions and their outcomes, live, with a key that is typed and never stored.

import { Failed, follow } from "./api.js";

const MOST = 200;
const OUTCOMES = {
  asked: ["In progress", ""], signed: ["Token sent", ""], granted: ["Door released", "yes"], refused: ["Not confirmed", "no"],
  refused_by_building: ["The building refused", "no"], unreachable: ["Building not reached, nothing signed", "no"],
  unknown: ["Unknown whether it opened", "no"],
};
const form = document.getElementById("form");
const state = document.getElementById("state");
const rows = document.getElementById("rows");
const known = new Map();

function cell(text, kind = "", tag = "td") {
  const node = document.createElement(tag);
  node.textContent = text;
  if (kind) node.className = kind;
  return node;
}

function check(decision, name) {
  const result = decision.checks.find((each) => each.check === name);
  if (!result) return cell("–");
  let text = result.passed ? "✓ confirmed" : `✗ ${result.reason.replaceAll("_", " ")}`;
  if (name === "position" && decision.position) {
    const { metres, accuracy, typed } = decision.position;
    if (metres !== null) text += `, ${metres} m ± ${accuracy} m`;
    if (typed) text += ", TYPED";
  }
  return cell(text, result.passed ? "yes" : "no");
}

function row(decision) {
  const node = document.createElement("tr");
  const time = document.createElement("time");
  time.dateTime = decision.asked_at;
  time.textContent = new Date(decision.asked_at).toLocaleString();
  const when = cell("");
  when.append(time);
  const [text, kind] = OUTCOMES[decision.state] ?? [decision.state, ""];
  node.append(
    when,
    cell(decision.driver.name ?? decision.driver.id),
    cell(`${decision.building ?? "?"}: ${decision.door.name ?? decision.door.id}`),
    ...["id", "route", "position", "time"].map((name) => check(decision, name)),
    cell(decision.code && decision.state !== "granted" && decision.state !== "refused" ? `${text} (${decision.code})` : text, kind),
  );
  return node;
}

function heard(decision) {
  const node = row(decision);
  const before = known.get(decision.request);
  if (before) before.replaceWith(node);
  else rows.prepend(node);
  known.set(decision.request, node);
  while (known.size > MOST) {
    const [oldest, old] = known.entries().next().value;
    old.remove();
    known.delete(oldest);
  }
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const key = document.getElementById("key").value.trim();
  form.hidden = true;
  document.querySelector(".scroll").hidden = false;
  for (let wait = 1000; ; wait = Math.min(wait * 2, 30_000)) {
    state.textContent = "Connected. What comes is shown at once.";
    try {
      await follow("GET", "/v1/decisions/live", undefined, (decision) => { wait = 1000; heard(decision); }, { Authorization: `Bearer ${key}` });
      state.textContent = "The cloud ended the connection. Connecting again …";
    } catch (error) {
      if (!(error instanceof Failed)) throw error;
      if (error.status === 401 || error.status === 403) {
        state.textContent = error.status === 401 ? "This key is not known, or it was revoked." : "This key may not read decisions: it needs the scope “read”.";
        form.hidden = false;
        return;
      }
      state.textContent = "No connection. Trying again …";
    }
    await new Promise((resolve) => { setTimeout(resolve, wait); });
  }
});
