// The pages that refresh themselves: drop files, follow their upload and classification, act on a batch.

import { batchName, fromDrop, fromInput } from "./files.js";
import { Problem, call, withRetries } from "./http.js";
import { Live } from "./live.js";
import { Uploads } from "./uploads.js";
import { UploadsPanel } from "./uploads_panel.js";

const ATTEMPTS = 4;
const SEAL_ATTEMPTS = 20;
const live = new Live();
let uploads = null;
let lastState = state();

const page = () => document.querySelector("main").dataset;

function state() {
  return document.getElementById("status")?.dataset.state;
}

function announce(text) {
  const announcer = document.querySelector("[data-announcer]");
  if (announcer) announcer.textContent = text;
}

function showProblem(text) {
  showMessage(text).dataset.kind = "problem";
}

function showMessage(text) {
  const message = document.createElement("p");
  message.className = "message error";
  message.setAttribute("role", "alert");
  message.textContent = text;
  document.getElementById("messages").replaceChildren(message);
  return message;
}

function removeMessage(kind) {
  document.querySelector(`#messages [data-kind=${kind}]`)?.remove();
}

async function addFiles(dropped) {
  removeMessage("problem");
  const encoding = document.getElementById("encoding")?.value;
  const files = dropped.map((one) => ({ ...one, encoding }));
  if (page().page === "lab" || (page().page === "home" && !document.querySelector("[data-drop]"))) return undefined;
  if (files.length === 0) return showProblem("No files were found in what you dropped.");
  try {
    if (page().page === "home") await beginBatch(files);
    else await addToBatch(files);
  } catch (problem) {
    if (!(problem instanceof Problem)) throw problem;
    showProblem(problem.message);
  }
}

async function beginBatch(files) {
  const draft = {
    name: document.getElementById("batch-name").value.trim() || batchName(files).slice(0, 255),
    urgent: document.getElementById("urgent").checked,
  };
  const keepOpen = document.getElementById("keep-open").checked;
  document.querySelector("[data-drop]").inert = true;
  try {
    const batch = await create(draft);
    await withRetries(() => live.visit(`/batches/${batch.id}`), { attempts: ATTEMPTS });
  } finally {
    const zone = document.querySelector("[data-drop]");
    if (zone) zone.inert = false;
  }
  beginUploads(files, { sealWhenSent: !keepOpen });
}

// Sends the same Idempotency-Key with every attempt, so that repeated attempts create one batch only.
async function create(draft) {
  const key = [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  const headers = { "Idempotency-Key": key };
  return withRetries(() => call("POST", page().batches, { body: draft, headers }), { attempts: ATTEMPTS });
}

async function addToBatch(files) {
  if (state() !== "open") return showProblem("This batch takes no more files. Create another batch for them.");
  if (uploads) uploads.add(files);
  else beginUploads(files, { sealWhenSent: false });
}

function beginUploads(files, { sealWhenSent }) {
  uploads = new Uploads(page().batch);
  uploads.sealWhenSent = sealWhenSent;
  new UploadsPanel(uploads, document.querySelector("[data-uploads]"));
  uploads.addEventListener("refused", () => announce(`Refused: ${uploads.lastRefusal}`));
  uploads.addEventListener("refused", () => live.hurry());
  uploads.addEventListener("sent", () => live.hurry(), { once: true });
  uploads.addEventListener("drained", ended);
  uploads.add(files);
  announce(`Uploading ${files.length} files.`);
}

async function ended() {
  live.hurry();
  if (uploads.unsent.length > 0) return announce(`${uploads.unsent.length} files could not be sent.`);
  announce("All files are sent.");
  if (uploads.sealWhenSent) await seal();
  live.refresh();
}

async function seal() {
  const address = `${uploads.batchAddress}/seal`;
  try {
    await withRetries(() => call("POST", address), { attempts: SEAL_ATTEMPTS, codes: ["archive_being_received"] });
  } catch (problem) {
    if (!(problem instanceof Problem)) throw problem;
    showProblem(problem.message);
  }
}

async function act(button) {
  removeMessage("problem");
  if ("waits" in button.dataset && uploads?.isBusy) return uploads.sealLater();
  if ("ends" in button.dataset) uploads?.abandon();
  button.disabled = true;
  const isDeletion = page().page === "batch" && button.dataset.call === "DELETE";
  if (isDeletion) live.stop(); // a refresh would report that the batch is gone
  try {
    await call(button.dataset.call, button.dataset.address);
    if (isDeletion) return location.assign("/");
  } catch (problem) {
    if (!(problem instanceof Problem)) throw problem;
    showProblem(problem.message);
  } finally {
    button.disabled = false;
  }
  live.resume();
  return live.refresh();
}

function choose(button) {
  const zone = button.closest("[data-drop]");
  zone.querySelector(button.dataset.choose === "folder" ? "[data-folder]" : "[data-files]").click();
}

function mark(isOver) {
  document.querySelector("[data-drop]")?.classList.toggle("over", isOver);
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-choose]");
  if (button) return choose(button);
  const action = event.target.closest("[data-call]");
  if (action) return act(action);
  const link = event.target.closest("[data-live] a[href]:not([download], [target])");
  const isPlain = !event.defaultPrevented && event.button === 0 && !event.ctrlKey && !event.metaKey && !event.shiftKey;
  if (!link || !isPlain || link.pathname !== location.pathname || link.hash) return undefined;
  event.preventDefault();
  return live.turnTo(link.href);
});

document.addEventListener("change", (event) => {
  const input = event.target;
  if (input.matches("[data-files], [data-folder]")) {
    const files = fromInput(input);
    input.value = "";
    addFiles(files);
  } else if (input.closest("[data-filters]")) {
    input.form.requestSubmit();
  }
});

document.addEventListener("submit", (event) => {
  const form = event.target;
  if (form.matches("[data-filters]")) {
    event.preventDefault();
    const wanted = new URLSearchParams([...new FormData(form)].filter(([, value]) => value));
    live.turnTo(`${location.pathname}?${wanted}`);
  } else if (uploads?.isBusy) {
    uploads.stop();
  }
});

document.addEventListener("dragover", (event) => {
  if (!event.dataTransfer.types.includes("Files")) return;
  event.preventDefault();
  mark(true);
});

document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) mark(false);
});

document.addEventListener("drop", async (event) => {
  if (!event.dataTransfer.types.includes("Files")) return;
  event.preventDefault();
  mark(false);
  addFiles(await fromDrop(event.dataTransfer));
});

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") document.querySelector("details.confirm[open]")?.removeAttribute("open");
});

// A thumbnail may not exist yet, or may be deleted.
document.addEventListener("error", (event) => event.target.matches?.(".thumbnail") && event.target.classList.add("missing"), true);

addEventListener("beforeunload", (event) => {
  if (uploads?.isBusy) event.preventDefault();
});

addEventListener("popstate", () => location.reload());

live.addEventListener("changed", () => {
  const status = document.getElementById("status");
  if (!status) return;
  if (status.dataset.settled === "no") document.title = `${status.dataset.percent} % · ${document.title}`;
  if (status.dataset.state !== lastState) announce(`The batch is ${status.dataset.state}: ${status.dataset.outcome}.`);
  lastState = status.dataset.state;
});
live.addEventListener("lost", () => (showMessage("The connection is lost. Trying again…").dataset.kind = "connection"));
live.addEventListener("reached", () => removeMessage("connection"));
live.addEventListener("gone", () => {
  if (!uploads?.isBusy) location.reload();
});

if (page().page) live.start();
