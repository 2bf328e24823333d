// Refreshes a page: requests it again with its ETag, and updates the parts marked data-live unless the answer is 304.
// It does so every 0.4 s for 5 s when a change is expected, then every second or two, and more slowly when hidden.

import { Problem, ask } from "./http.js";
import { morph } from "./morph.js";
import { localise } from "./times.js";

const HURRY_MS = 5_000;
const HURRIED_MS = 400;
const CHANGING_MS = 1_000;
const QUIET_MS = 2_000;
const SETTLED_MS = 15_000;
const HIDDEN_MS = 15_000;

export class Live extends EventTarget {
  #address = location.href;
  #etag = null;
  #hurryUntil = 0;
  #changedLast = true;
  #timer = 0;
  #turn = 0;
  #isStopped = false;

  start() {
    localise(document);
    document.addEventListener("visibilitychange", () => {
      if (!document.hidden) this.refresh();
    });
    this.hurry();
  }

  // Refreshes often for a few seconds.
  hurry() {
    this.#hurryUntil = performance.now() + HURRY_MS;
    this.#schedule();
  }

  // Stops refreshing until `resume` is called.
  stop() {
    this.#isStopped = true;
    this.#turn += 1;
    clearTimeout(this.#timer);
  }

  resume() {
    this.#isStopped = false;
    this.hurry();
  }

  // Refreshes now.
  async refresh() {
    if (this.#isStopped) return;
    const turn = ++this.#turn;
    clearTimeout(this.#timer);
    const answer = await ask(this.#address, { headers: this.#etag ? { "If-None-Match": this.#etag } : {} }).catch(catchProblem);
    if (turn !== this.#turn) return; // another refresh or visit began meanwhile, so this answer is out of date
    this.#dispatch(answer instanceof Problem ? "lost" : "reached");
    this.#changedLast = answer.response?.status !== 304;
    if (answer.response && this.#changedLast) this.#apply(answer);
    this.#schedule();
  }

  // Shows the same page at another address, for another filter or another page of rows.
  async turnTo(address) {
    this.#address = address;
    this.#etag = null;
    history.replaceState(null, "", address);
    await this.refresh();
  }

  // Shows another page in this document, so that uploads continue. Throws a Problem.
  async visit(address) {
    const { response, text } = await ask(address);
    if (!response.ok) throw new Problem(response.status, "", `The server reported an error (${response.status}).`);
    const fresh = parse(text);
    history.pushState(null, "", response.url);
    this.#address = response.url;
    this.#etag = response.headers.get("ETag");
    document.querySelector("main").replaceWith(fresh.querySelector("main"));
    morph(document.querySelector(".masthead"), fresh.querySelector(".masthead"));
    document.title = fresh.title;
    scrollTo(0, 0);
    this.#turn += 1; // drops the answers to requests of the page before
    this.hurry();
  }

  #apply({ response, text }) {
    if (!response.ok || !isSamePage(response.url)) {
      this.#dispatch("gone");
      return;
    }
    const fresh = parse(text);
    this.#etag = response.headers.get("ETag");
    document.title = fresh.title;
    for (const part of document.querySelectorAll("[data-live]")) {
      const wanted = fresh.getElementById(part.id);
      if (wanted) morph(part, wanted);
    }
    this.#dispatch("changed");
  }

  #schedule() {
    clearTimeout(this.#timer);
    if (this.#isStopped) return;
    this.#timer = setTimeout(() => this.refresh(), this.#delay());
  }

  #delay() {
    if (document.hidden) return HIDDEN_MS;
    if (performance.now() < this.#hurryUntil) return HURRIED_MS;
    if (document.querySelector("[data-settled=yes]")) return SETTLED_MS;
    return this.#changedLast ? CHANGING_MS : QUIET_MS;
  }

  #dispatch(name) {
    this.dispatchEvent(new Event(name));
  }
}

function catchProblem(error) {
  if (error instanceof Problem) return error;
  throw error;
}

function parse(text) {
  const fresh = new DOMParser().parseFromString(text, "text/html");
  localise(fresh);
  return fresh;
}

function isSamePage(address) {
  return new URL(address).pathname === location.pathname;
}
