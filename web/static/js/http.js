// Calls the API from a signed-in page: sends the CSRF token, and throws problems (RFC 9457) as errors.

const CSRF_HEADER = "X-CSRFToken";
const TRANSIENT = new Set([0, 408, 429, 500, 502, 503, 504]);
const FIRST_PAUSE_MS = 500;
const STALLED_MS = 120_000; // after this time without a byte sent, the connection of an upload counts as lost

export class Problem extends Error {
  constructor(status, code, detail, retrySeconds = 0) {
    super(detail);
    this.status = status;
    this.code = code;
    this.retrySeconds = retrySeconds;
  }

  // Tells whether the same request may succeed later.
  get isTransient() {
    return TRANSIENT.has(this.status);
  }
}

export async function call(method, address, { body, headers = {} } = {}) {
  const sent = { [CSRF_HEADER]: csrfToken(), ...headers };
  if (body !== undefined) sent["Content-Type"] = "application/json";
  const { response, text } = await ask(address, { method, headers: sent, body: body && JSON.stringify(body) });
  if (!response.ok) throw problemOf(response.status, text, response.headers.get("Retry-After"));
  return text ? JSON.parse(text) : null;
}

// Requests an answer without the browser's cache. Throws a Problem if the connection fails or the error is transient.
export async function ask(address, options = {}) {
  try {
    const response = await fetch(address, { cache: "no-store", ...options });
    const text = await response.text();
    if (!TRANSIENT.has(response.status)) return { response, text };
    throw problemOf(response.status, text, response.headers.get("Retry-After"));
  } catch (error) {
    throw error instanceof Problem ? error : connectionLost();
  }
}

// Repeats `work` while it fails with a transient problem, or with a problem of one of these codes.
export async function withRetries(work, { attempts, codes = [] }) {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await work();
    } catch (problem) {
      const isRepeatable = problem instanceof Problem && (problem.isTransient || codes.includes(problem.code));
      if (!isRepeatable || attempt === attempts) throw problem;
      await pause(Math.max(FIRST_PAUSE_MS * attempt, problem.retrySeconds * 1000));
    }
  }
}

// Puts a file and reports the bytes sent so far, for which XMLHttpRequest is needed: fetch does not report them.
export function put(address, file, { onProgress, signal }) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    let stall;
    const restartTimer = () => {
      clearTimeout(stall);
      stall = setTimeout(() => request.abort(), STALLED_MS);
    };
    const stop = () => request.abort();
    request.open("PUT", address);
    request.setRequestHeader(CSRF_HEADER, csrfToken());
    request.setRequestHeader("Content-Type", "application/octet-stream");
    request.upload.addEventListener("progress", (event) => {
      restartTimer();
      onProgress(event.loaded);
    });
    request.addEventListener("load", () => {
      if (request.status >= 200 && request.status < 300) return resolve(request.status);
      return reject(problemOf(request.status, request.responseText, request.getResponseHeader("Retry-After")));
    });
    request.addEventListener("error", () => reject(connectionLost()));
    request.addEventListener("abort", () => reject(connectionLost()));
    request.addEventListener("loadend", () => {
      clearTimeout(stall);
      signal.removeEventListener("abort", stop);
    });
    signal.addEventListener("abort", stop);
    restartTimer();
    request.send(file);
  });
}

export function csrfToken() {
  return document.querySelector("meta[name=csrf-token]")?.content ?? "";
}

export const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

function connectionLost() {
  return new Problem(0, "connection_lost", "The connection was lost.");
}

function problemOf(status, text, retryAfter) {
  const retrySeconds = Number.parseFloat(retryAfter) || 0;
  try {
    const body = JSON.parse(text);
    return new Problem(status, body.code ?? "", body.detail ?? body.title ?? `The server reported an error (${status}).`, retrySeconds);
  } catch {
    return new Problem(status, "", `The server reported an error (${status}).`, retrySeconds);
  }
}
