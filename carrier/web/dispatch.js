// The dispatcher's page: decisions and their outcomes, live, alarms, and which buildings are connected, with a key that is
// typed and never stored.

import { ask, Failed, follow } from "./api.js";

const MOST = 200;
const LOOK_EVERY = 15_000;
const QUIET = 40_000; // the cloud says something every 15 s
const ALARMS = {
  never_issued: "A building accepted a token that this cloud did not issue. If you do not know why, a signing key is stolen: revoke it now",
  contradicted: "A building says that it accepted a token that it had answered otherwise, or that never left this cloud",
  second_link: "Two programs are the same controller at once: a copy of an installation, or a stolen identity",
  door_of_another: "A controller offers a door that another building has or had",
};
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

// ---- alarms and buildings ----

const alarms = document.getElementById("alarm-list");
const alarmState = document.getElementById("alarm-state");
const connected = document.getElementById("connected");
let looking = 0;

function item(...parts) {
  const node = document.createElement("li");
  node.append(...parts);
  return node;
}

function alarm(each, names, headers) {
  const seen = document.createElement("button");
  seen.className = "small";
  seen.textContent = "Seen";
  seen.setAttribute("aria-label", `Mark alarm ${each.id} as seen`);
  seen.addEventListener("click", async () => {
    seen.disabled = true;
    try {
      await ask("POST", `/v1/alarms/${each.id}/seen`, undefined, headers);
      alarmState.textContent = `Alarm ${each.id} is marked as seen.`;
      await look(headers);
    } catch (error) {
      if (!(error instanceof Failed)) throw error;
      seen.disabled = false;
      alarmState.textContent = error.status === 403 ? "This key may not mark alarms: it needs the scope “alarms”." : "Not marked: try again.";
    }
  });
  const where = names.get(each.building) ?? each.building ?? "";
  const about = each.subject === "more" ? `more of these, told ${each.detail.count} times` : each.subject;
  return item(`${new Date(each.at).toLocaleString()}: ${ALARMS[each.kind] ?? each.kind}. ${where}, ${about} `, seen);
}

async function look(headers) {
  const { buildings } = await ask("GET", "/v1/buildings", undefined, headers, 60_000);
  const names = new Map(buildings.map((each) => [each.id, each.name]));
  const here = (each) => each.controllers.some((controller) => controller.connected_since !== null);
  const away = buildings.filter((each) => !here(each));
  const { alarms: waiting } = await ask("GET", "/v1/alarms?seen=false", undefined, headers);
  connected.className = "";
  connected.textContent = `${buildings.length - away.length} of ${buildings.length} connected.`;
  document.getElementById("away").replaceChildren(...away.slice(0, MOST).map((each) => item(`Not connected: ${each.name}`)));
  document.getElementById("buildings").hidden = false;
  if (!alarms.contains(document.activeElement) || waiting.length !== alarms.children.length) {
    alarms.replaceChildren(...waiting.map((each) => alarm(each, names, headers)));
  }
  document.getElementById("alarms").hidden = waiting.length === 0;
}

async function keepLooking(headers) {
  const mine = ++looking;
  while (mine === looking) {
    try {
      await look(headers);
    } catch (error) {
      if (!(error instanceof Failed)) throw error;
      if (error.status !== 401 && error.status !== 403) { // of these, what follows the decisions says so
        connected.className = "bad";
        connected.textContent = "No answer: the alarms and buildings shown here are old.";
        document.getElementById("buildings").hidden = false;
      }
    }
    await new Promise((resolve) => { setTimeout(resolve, LOOK_EVERY); });
  }
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const key = document.getElementById("key").value.trim();
  form.hidden = true;
  document.querySelector(".scroll").hidden = false;
  const headers = { Authorization: `Bearer ${key}` };
  keepLooking(headers);
  state.textContent = "Connecting …";
  for (let wait = 1000; ; wait = Math.min(wait * 2, 30_000)) {
    try {
      await follow("GET", "/v1/decisions/live", undefined, (decision) => { wait = 1000; heard(decision); }, {
        headers, quiet: QUIET, connected: () => { state.textContent = "Connected. What comes is shown at once."; },
      });
      state.textContent = "The cloud ended the connection. Connecting again …";
    } catch (error) {
      if (!(error instanceof Failed)) throw error;
      if (error.status === 401 || error.status === 403) {
        state.textContent = error.status === 401 ? "This key is not known, or it was revoked." : "This key may not read decisions: it needs the scope “read”.";
        form.hidden = false;
        looking += 1;
        return;
      }
      state.textContent = error.status ? `The cloud cannot answer now (${error.status}). Trying again …` : "No connection. Trying again …";
    }
    await new Promise((resolve) => { setTimeout(resolve, wait); });
  }
});
