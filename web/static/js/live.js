// Keeps a page live: it asks for the page itself with the ETag it has, mostly gets a 304, and changes the parts marked
// data-live. Each 0.4 s for 5 s when something is about to happen, then each second or two, slower when hidden.

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

  // Looks often for a few seconds.
  hurry() {
    this.#hurryUntil = performance.now() + HURRY_MS;
    this.#schedule();
  }

  // Looks no more until it may again.
  stop() {
    this.#isStopped = true;
    this.#turn += 1;
    clearTimeout(this.#timer);
  }

  resume() {
    this.#isStopped = false;
    this.hurry();
  }

  // Looks now.
  async refresh() {
    if (this.#isStopped) return;
    const turn = ++this.#turn;
    clearTimeout(this.#timer);
    const answer = await ask(this.#address, { headers: this.#etag ? { "If-None-Match": this.#etag } : {} }).catch(orProblem);
    if (turn !== this.#turn) return; // overtaken: the page may be another one by now
    this.#dispatch(answer instanceof Problem ? "lost" : "reached");
    this.#changedLast = answer.response?.status !== 304;
    if (answer.response && this.#changedLast) this.#take(answer);
    this.#schedule();
  }

  // Shows the same page at another address: another filter, another page of rows.
  async turnTo(address) {
    this.#address = address;
    this.#etag = null;
    history.replaceState(null, "", address);
    await this.refresh();
  }

  // Goes to another page without leaving this document, so that uploads go on. Raises a Problem.
  async visit(address) {
    const { response, text } = await ask(address);
    if (!response.ok) throw new Problem(response.status, "", `The server answered ${response.status}.`);
    const fresh = parse(text);
    history.pushState(null, "", response.url);
    this.#address = response.url;
    this.#etag = response.headers.get("ETag");
    document.querySelector("main").replaceWith(fresh.querySelector("main"));
    morph(document.querySelector(".masthead"), fresh.querySelector(".masthead"));
    document.title = fresh.title;
    scrollTo(0, 0);
    this.#turn += 1; // whatever was asked of the page before comes too late
    this.hurry();
  }

  #take({ response, text }) {
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

function orProblem(error) {
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
