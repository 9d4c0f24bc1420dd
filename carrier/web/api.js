// What the pages ask the cloud: JSON by fetch, answers line by line as they come, and passkeys in base64url.

const QUIET = 15_000; // milliseconds without a word, after which nobody is there any more

export class Failed extends Error {
  constructor(status, word) {
    super(word);
    this.status = status;
    this.word = word;
  }
}

/** How long to listen: a phone in a lift is not told that its line is dead. `heard` begins anew. */
function patience(quiet) {
  const line = new AbortController();
  let timer;
  const heard = () => {
    clearTimeout(timer);
    timer = setTimeout(() => line.abort(), quiet);
  };
  heard();
  return { signal: line.signal, heard };
}

async function send(method, path, body, headers, signal) {
  const options = { method, headers, signal, credentials: "same-origin", cache: "no-store", redirect: "error" };
  if (body !== undefined) {
    options.headers = { ...headers, "Content-Type": "application/json" };
    options.body = JSON.stringify(body);
  }
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Failed(0, "offline");
  }
  if (!response.ok) {
    let word = "failed";
    try {
      word = (await response.json()).error;
    } catch { /* a proxy's own page */ }
    throw new Failed(response.status, word);
  }
  return response;
}

export async function ask(method, path, body, headers, quiet = QUIET) {
  const response = await send(method, path, body, headers, patience(quiet).signal);
  if (response.status === 204) return null;
  try {
    return await response.json();
  } catch {
    throw new Failed(0, "offline");
  }
}

/** Call `heard` with each line of the answer, as soon as it is there, and `connected` once before. */
export async function follow(method, path, body, heard, { headers, quiet, connected }) {
  const line = patience(quiet);
  const response = await send(method, path, body, headers, line.signal);
  connected?.();
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    let part;
    try {
      part = await reader.read();
    } catch {
      throw new Failed(0, "offline");
    }
    if (part.done) return;
    line.heard();
    const lines = (rest + part.value).split("\n");
    rest = lines.pop();
    for (const line of lines) if (line) heard(JSON.parse(line));
  }
}

// ---- passkeys ----

const bytes = (text) =>
  Uint8Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), (character) => character.charCodeAt(0));

const text = (buffer) =>
  btoa(String.fromCharCode(...new Uint8Array(buffer))).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");

const named = (list) => (list ?? []).map((each) => ({ ...each, id: bytes(each.id) }));

export async function createPasskey(options) {
  const made = await navigator.credentials.create({
    publicKey: {
      ...options,
      challenge: bytes(options.challenge),
      user: { ...options.user, id: bytes(options.user.id) },
      excludeCredentials: named(options.excludeCredentials),
    },
  });
  return {
    id: text(made.rawId),
    clientDataJSON: text(made.response.clientDataJSON),
    attestationObject: text(made.response.attestationObject),
    transports: made.response.getTransports?.() ?? [],
  };
}

export async function usePasskey(options) {
  const shown = await navigator.credentials.get({
    publicKey: { ...options, challenge: bytes(options.challenge), allowCredentials: named(options.allowCredentials) },
  });
  return {
    id: text(shown.rawId),
    clientDataJSON: text(shown.response.clientDataJSON),
    authenticatorData: text(shown.response.authenticatorData),
    signature: text(shown.response.signature),
  };
}
