// The driver's page: join by a link, today's stops, ask for a door, see each confirmation, know what to do next.
// It builds every node itself, and never from text that was sent: there is no markup in anybody's name.

import { Failed, ask, createPasskey, follow, usePasskey } from "./api.js";
import { fill, language, reasons, words } from "./words.js";

const CHECKS = ["id", "route", "position", "time"];
const GOOD_METRES = 30;
const FRESH = 10_000; // milliseconds
const YOUNG = 20_000; // for a position that is not confirmed yet: in the cloud, it is old after 30 s
const DECIDING = 25_000; // a building may take 23 s for a challenge and a door
const main = document.getElementById("main");
const said = document.getElementById("said");
let today = null;
let typed = null; // a position somebody typed, where the cloud takes such

// ---- building blocks ----

function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "onclick" || name === "onsubmit") node[name] = value;
    else if (value !== false && value != null) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child != null));
  return node;
}

function show(...nodes) {
  main.replaceChildren(...nodes.filter((node) => node != null));
  scrollTo(0, 0);
  const heading = main.querySelector("h1, h2");
  if (heading) {
    heading.tabIndex = -1;
    heading.focus({ preventScroll: true });
  }
}

const say = (text) => { said.textContent = text; };
const note = (kind, title, ...lines) =>
  el("section", { class: `note ${kind}`, role: kind === "good" ? null : "alert" }, el("h2", {}, title), ...lines.map((line) => el("p", {}, line)));
const button = (text, onclick, kind = "") => el("button", { type: "button", class: kind, onclick }, text);
const clock = (seconds, zone) =>
  new Intl.DateTimeFormat(navigator.language, { hour: "2-digit", minute: "2-digit", hourCycle: "h23", timeZone: zone }).format(seconds * 1000);

/** What happened, in words, and what to do. */
function trouble(error) {
  if (error instanceof Failed) return words.failed[error.word] ?? words.failed.failed;
  if (error instanceof NoPosition) return words.position[error.message];
  if (["SecurityError", "NotSupportedError"].includes(error?.name) || !window.PublicKeyCredential) return words.noPasskeys;
  if (error instanceof DOMException) return words.notConfirmed;
  reportError(error); // our own mistake
  return words.failed.failed;
}

// ---- join, sign in ----

function join(invitation) {
  const go = button(words.joinButton, async () => {
    go.disabled = true;
    try {
      const { options } = await ask("POST", "/driver/join", { invitation });
      const credential = await createPasskey(options);
      await ask("POST", "/driver/join/passkey", { invitation, credential });
      history.replaceState(null, "", "/");
      await openToday(words.joined);
    } catch (error) {
      const over = { not_found: words.invitationSpent, conflict: words.failed.conflict, InvalidStateError: words.alreadyHere };
      const told = over[error.word ?? error.name];
      if (told) show(note("bad", ...told), signInButton());
      else problem(error, go);
    }
  });
  show(el("h1", {}, words.joinTitle), el("p", {}, words.joinText), go);
}

function signInButton(kind = "") {
  const go = button(words.signInButton, async () => {
    go.disabled = true;
    try {
      const { options } = await ask("POST", "/driver/sign-in");
      const credential = await usePasskey(options);
      await ask("POST", "/driver/sign-in/passkey", { credential });
      history.replaceState(null, "", "/");
      await openToday();
    } catch (error) {
      if (error instanceof Failed && error.word === "forbidden") error.word = "unknownDevice";
      problem(error, go);
    }
  }, kind);
  return go;
}

function signIn() {
  show(el("h1", {}, words.signInTitle), el("p", {}, words.signInText), signInButton());
}

/** Say beside a button what went wrong, and let it be pressed again. */
function problem(error, beside) {
  const [title, ...lines] = trouble(error);
  document.getElementById("problem")?.remove();
  const told = note("bad", title, ...lines);
  told.id = "problem";
  beside.before(told);
  beside.disabled = false;
}

// ---- today ----

async function openToday(first = null) {
  try {
    today = await ask("GET", "/driver/today");
  } catch (error) {
    if (error instanceof Failed && error.status === 401) return signIn();
    show(note("bad", ...trouble(error)), button(words.again, () => openToday()));
    return;
  }
  document.getElementById("company").textContent = today.company;
  document.getElementById("who").textContent = today.driver;
  watchPosition();
  const due = today.stops.filter((stop) => nextDoor(stop));
  const over = today.stops.filter((stop) => !due.includes(stop));
  show(
    first && note("good", ...first),
    el("h1", {}, words.todayTitle),
    due.length ? null : el("p", {}, today.stops.length ? words.allDone : words.noStops),
    ...due.map(stopCard),
    today.typed_positions ? typedPosition() : null,
    button(words.refresh, () => openToday(), "second"),
    over.length ? el("h2", {}, words.over) : null,
    ...over.map(stopCard),
    button(words.signOut, async () => {
      try { await ask("DELETE", "/driver/session"); } catch (error) { if (!(error instanceof Failed)) throw error; }
      signIn();
    }, "second"),
  );
}

/** The door that may be asked for now: the first that was not, if those before it opened, or may have. */
function nextDoor(stop) {
  if (stop.state !== "due") return null;
  const index = stop.doors.findIndex((door) => door.state === "not_yet");
  const before = stop.doors.slice(0, Math.max(index, 0));
  return index >= 0 && before.every((door) => ["opened", "unknown"].includes(door.state)) ? stop.doors[index] : null;
}

function stopCard(stop) {
  const next = nextDoor(stop);
  return el("section", { class: next ? "card" : "card over", "aria-label": stop.building },
    el("h2", {}, stop.building),
    el("p", { class: "soft" }, fill(words.window, { from: clock(stop.from, stop.zone), to: clock(stop.to, stop.zone) })),
    stop.state === "due" ? null : el("p", {}, words.stopStates[stop.state]),
    el("ol", { class: "doors" }, ...stop.doors.map((door) => {
      const word = door === next ? words.doorNext : words.doorStates[door.state];
      const [kind, mark] = { opened: ["yes", "✓"], refused: ["no", "✗"], unknown: ["", "?"] }[door.state] ?? ["", "·"];
      return el("li", { class: kind },
        el("span", { class: "mark", "aria-hidden": "true" }, mark),
        el("span", { class: "name" }, door.name, el("span", { class: "soft" }, ` – ${word}`)));
    })),
    next ? button(fill(words.openDoor, { door: next.name }), () => request(stop, next)) : null,
  );
}

// ---- position ----

class NoPosition extends Error {}
let fix = null; // the newest: {lat, lon, accuracy, at}
let watching = null;
let noPosition = null;
const waiting = new Set();

function watchPosition() {
  if (watching !== null || !navigator.geolocation) return;
  watching = navigator.geolocation.watchPosition(
    ({ coords, timestamp }) => {
      fix = { lat: coords.latitude, lon: coords.longitude, accuracy: Math.min(Math.ceil(coords.accuracy), 1_000_000),
        at: Math.floor(timestamp / 1000) };
      noPosition = null;
      for (const wake of waiting) wake();
    },
    (error) => {
      noPosition = error.code === 1 ? "denied" : "none";
      if (noPosition === "denied") { navigator.geolocation.clearWatch(watching); watching = null; }
      for (const wake of waiting) wake();
    },
    { enableHighAccuracy: true, maximumAge: 0, timeout: 30_000 },
  );
}

/** The best position to be had within a few seconds. A refusal says so at once. */
async function position() {
  if (typed) return { ...typed, accuracy: 1, at: Math.floor(Date.now() / 1000), typed: true };
  if (!navigator.geolocation) throw new NoPosition("none");
  noPosition = null;
  watchPosition();
  const isFresh = () => fix !== null && Date.now() - fix.at * 1000 < FRESH;
  const wait = (milliseconds, enough) => new Promise((resolve) => {
    const wake = () => { if (enough() || noPosition === "denied") done(); };
    const done = () => { clearTimeout(timer); waiting.delete(wake); resolve(); };
    const timer = setTimeout(done, milliseconds);
    waiting.add(wake);
    wake();
  });
  await wait(6_000, () => isFresh() && fix.accuracy <= GOOD_METRES);
  if (!isFresh()) await wait(14_000, isFresh);
  if (noPosition === "denied") throw new NoPosition("denied");
  if (!isFresh()) throw new NoPosition("none");
  return { ...fix, typed: false };
}

function typedPosition() {
  const field = (name, label) => [
    el("label", { for: name }, label),
    el("input", { id: name, inputmode: "decimal", autocomplete: "off", value: typed?.[name === "latitude" ? "lat" : "lon"] ?? null }),
  ];
  const state = el("p", { role: "status" }, typed ? words.typedUsed : words.typedText);
  const use = button(words.typedButton, () => {
    const [lat, lon] = ["latitude", "longitude"].map((id) => Number(document.getElementById(id).value.replace(",", ".") || NaN));
    typed = Math.abs(lat) <= 90 && Math.abs(lon) <= 180 ? { lat, lon } : null;
    state.textContent = typed ? words.typedUsed : words.typedWrong;
  }, "second");
  return el("fieldset", {}, el("legend", {}, words.typedTitle), state,
    ...field("latitude", words.latitude), ...field("longitude", words.longitude), use);
}

// ---- a door ----

function steps() {
  const list = el("ol", { class: "steps" });
  const rows = {};
  for (const name of [...CHECKS, "building"]) {
    rows[name] = {
      row: el("li"), mark: el("span", { class: "mark", "aria-hidden": "true" }, "·"), why: el("span", { class: "why soft" }, words.waiting),
    };
    rows[name].row.append(rows[name].mark, el("span", {}, el("strong", {}, words.steps[name]), rows[name].why));
    list.append(rows[name].row);
  }
  const set = (name, kind, text) => {
    const { row, mark, why } = rows[name];
    row.className = kind;
    mark.textContent = { yes: "✓", no: "✗", busy: "◌", "": "·" }[kind];
    why.textContent = text;
    why.classList.toggle("soft", kind !== "no");
  };
  return { list, set, open: () => CHECKS.filter((name) => rows[name].row.className === "busy") };
}

/** Ask for a door. `begun`: what was asked for already, and only waits for the passkey. */
async function request(stop, door, begun = null) {
  const { list, set, open } = steps();
  let asked = false;
  const doing = el("p", { role: "status" }, words.locating);
  show(el("h1", {}, door.name), el("p", { class: "soft" }, stop.building), doing, list);
  try {
    if (begun === null) {
      set("position", "busy", words.locating);
      const at = await position();
      located(at);
      begun = { at, ...await ask("POST", "/driver/requests", { stop: stop.id, door: door.id, position: at }) };
    } else located(begun.at);
    await confirm();
  } catch (error) {
    failed(error);
  }

  function located(at) {
    set("position", "", at.typed ? words.typedMark : fill(words.located, { metres: at.accuracy }));
  }

  async function confirm() {
    doing.textContent = words.confirmYou;
    set("id", "busy", words.confirmYou);
    const credential = await usePasskey(begun.options);
    doing.textContent = words.checking;
    for (const name of CHECKS) set(name, "busy", words.checking);
    const path = `/driver/requests/${begun.request}`;
    const mark = begun.at.typed ? ` ${words.typedMark}.` : "";
    let outcome = null;
    let used = null;
    const missing = new Map();
    const heard = (line) => {
      if (line.event === "check") {
        const text = (line.passed ? words.passed[line.check] : told(line)) + (line.check === "position" ? mark : "");
        set(line.check, line.passed ? "yes" : "no", text);
        if (!line.passed) missing.set(line.check, text);
        say(`${words.steps[line.check]}: ${text}`);
      } else if (line.event === "building") {
        doing.textContent = words.askingBuilding;
        set("building", "busy", words.askingBuilding);
        asked = true; // and then something may have been withdrawn
      } else if (line.event === "outcome") outcome = line;
    };
    try {
      await follow("POST", path, { credential }, heard, { quiet: DECIDING });
    } catch (error) {
      // A browser sends it twice if a line that it kept was reset: then the first may be what it was used for.
      if (error.status === 410) used = error;
      // The cloud itself turned it away before it looked at it; a 502 or 504 is of whatever is in front of the cloud.
      else if (!isCut(error) || (error.status === 503 && error.word === "unavailable")) throw error;
    }
    // The line was cut, or what is in front of the cloud says that it was. The decision goes on without us; what became of it is asked for, never asked for again.
    let arrived = true; // or not known
    let absent = 0;
    const patience = Date.now() + 45_000;
    while (outcome === null && Date.now() < patience) {
      doing.textContent = words.reconnecting;
      await new Promise((resolve) => { setTimeout(resolve, 1500); });
      try {
        for (const line of (await ask("GET", path)).events) heard(line);
        arrived = true;
      } catch (error) {
        if (![404, 429].includes(error.status) && !isCut(error)) throw error;
        arrived = error.status !== 404;
        // It is there as soon as the cloud has judged it: then this one came too late, and was the only one.
        if (!arrived && used && ++absent === 3) throw used;
      }
    }
    if (outcome === null && !arrived && used) throw used;
    finish([...missing.values()], outcome ?? { state: arrived ? "unheard" : "unsent", text: "", may_ask_again: !arrived });
  }

  function isCut(error) {
    return error instanceof Failed && (error.status === 0 || error.status >= 500);
  }

  function told(line) {
    const [what, then] = reasons?.[line.reason] ?? [line.text, line.advice];
    return `${what} ${then}`.trim();
  }

  function finish(missing, outcome) {
    const { state, may_ask_again: mayAsk } = outcome;
    const kind = { granted: "good", unknown: "wait", unheard: "wait" }[state] ?? "bad";
    doing.remove();
    const word = mayAsk && state === "refused_by_building" ? "refused_for_now" : state;
    const [title, ...lines] = words.outcomes[word] ?? words.failed[word] ?? words.outcomes.unknown;
    if (state === "granted") set("building", "yes", words.released);
    else if (state === "refused") set("building", "", asked ? title : words.notAsked);
    else if (["unavailable", "unsent"].includes(state)) for (const name of [...CHECKS, "building"]) set(name, "", words.waiting);
    else set("building", kind === "wait" ? "" : "no", title);
    for (const name of open()) set(name, "", words.notKnown);
    const more = reasons?.[outcome.code] ?? [outcome.text, outcome.advice];
    if (state === "refused") lines.unshift(...missing);
    if (more[0] && state !== "refused") lines.unshift(more.join(" "));
    const states = { granted: "opened", unknown: "unknown", refused_by_building: "refused" };
    if (!mayAsk) door.state = states[state] ?? door.state;
    const further = ["granted", "unknown"].includes(state) ? nextDoor(stop) : null;
    const banner = note(kind, title, ...lines);
    banner.querySelector("h2").id = "outcome";
    list.before(banner);
    main.append(
      further ? button(fill(words.openDoor, { door: further.name }), () => request(stop, further)) : "",
      mayAsk ? button(words.again, () => request(stop, door)) : "",
      button(words.back, () => openToday(), "second"),
    );
    say(`${title} ${lines.join(" ")}`);
    navigator.vibrate?.(state === "granted" ? 200 : [80, 80, 80]);
    banner.scrollIntoView({ block: "nearest" });
  }

  function failed(error) {
    if (error instanceof Failed && error.status === 401) return signIn();
    const [title, ...lines] = trouble(error);
    doing.remove();
    for (const name of CHECKS) set(name, "", words.waiting);
    list.before(note("bad", title, ...lines));
    // Some phones want a finger on a button right before they ask for the passkey: then there is no time to begin anew.
    const waits = () => begun !== null && error instanceof DOMException && Date.now() - begun.at.at * 1000 < YOUNG;
    main.append(
      button(words.again, () => request(stop, door, waits() ? begun : null)),
      button(words.back, () => openToday(), "second"),
    );
    if (waits()) main.querySelector("button").focus();
    say(`${title} ${lines.join(" ")}`);
  }
}

// ---- begin ----

document.documentElement.lang = language;
document.title = words.title;
document.getElementById("company").textContent = words.title;
const invitation = /^#join=([A-Za-z0-9_-]{43})$/.exec(location.hash);
if (invitation) join(invitation[1]);
else await openToday();
addEventListener("hashchange", () => location.reload());
addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); });
