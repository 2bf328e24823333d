// Sends files to a batch, a few at a time. A file that is sent twice with the same name and bytes changes nothing on the
// server, so an interrupted file is sent again.

import { isArchive } from "./files.js";
import { Problem, pause, put } from "./http.js";

const PARALLEL = 4;
const ATTEMPTS = 8;
const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 20_000;
// After these errors the other files would fail too: the batch takes no more files, or somebody has to act first.
const ENDING_CODES = new Set(["batch_sealed", "batch_cancelled", "storage_full", "quota_kept_bytes", "database_full", "csrf"]);
const ENDING_STATUSES = new Set([401, 403, 404]);

export class Uploads extends EventTarget {
  #waiting = [];
  #running = 0;
  #endedBytes = 0;
  #stop = new AbortController();
  #isAbandoned = false;

  constructor(batchAddress) {
    super();
    this.batchAddress = batchAddress;
    this.total = 0;
    this.totalBytes = 0;
    this.sent = 0;
    this.refused = 0;
    this.lastRefusal = "";
    this.active = new Set();
    this.unsent = [];
    this.sealWhenSent = false;
  }

  get isBusy() {
    return this.#running > 0;
  }

  get sentBytes() {
    return [...this.active].reduce((bytes, upload) => bytes + upload.loaded, this.#endedBytes);
  }

  add(files) {
    this.total += files.length;
    this.totalBytes += files.reduce((bytes, { file }) => bytes + file.size, 0);
    this.#queue(files);
  }

  sealLater() {
    this.sealWhenSent = true;
    this.#changed();
  }

  // Sends the unsent files again.
  retry() {
    const files = this.unsent.map(({ name, file, encoding }) => ({ name, file, encoding }));
    this.unsent = [];
    this.#queue(files);
  }

  // Stops at once. Files that were not sent stay in the list.
  stop() {
    this.sealWhenSent = false;
    this.#stopAll(makeStopped());
  }

  // Stops at once and clears the list.
  abandon() {
    this.stop();
    this.#isAbandoned = true;
    this.unsent = [];
    this.#changed();
  }

  #queue(files) {
    if (this.#stop.signal.aborted) this.#stop = new AbortController();
    // Files are taken from the end, which is cheap also for ten thousand files.
    this.#waiting = [...files.map(({ name, file, encoding }) => ({ name, file, encoding, loaded: 0 })).reverse(), ...this.#waiting];
    while (this.#running < PARALLEL && this.#running < this.active.size + this.#waiting.length) this.#work();
    this.#changed();
  }

  async #work() {
    this.#running += 1;
    while (this.#waiting.length > 0) await this.#send(this.#waiting.pop());
    this.#running -= 1;
    this.#changed();
    if (this.#running === 0) this.dispatchEvent(new Event("drained"));
  }

  async #send(upload) {
    const stop = this.#stop;
    this.active.add(upload);
    try {
      await this.#sendWithRetries(upload, stop.signal);
      this.sent += 1;
      this.#endedBytes += upload.file.size;
      this.dispatchEvent(new Event("sent"));
    } catch (problem) {
      this.#fail(upload, problem, stop);
    } finally {
      this.active.delete(upload);
      this.#changed();
    }
  }

  async #sendWithRetries(upload, signal) {
    const onProgress = (loaded) => {
      upload.loaded = Math.min(loaded, upload.file.size);
      this.#changed();
    };
    for (let attempt = 1; ; attempt += 1) {
      try {
        return await put(this.#address(upload), upload.file, { onProgress, signal });
      } catch (problem) {
        upload.loaded = 0;
        if (signal.aborted) throw makeStopped();
        if (!(problem instanceof Problem) || !problem.isTransient || attempt === ATTEMPTS) throw problem;
        const backoff = Math.min(LONGEST_PAUSE_MS, FIRST_PAUSE_MS * 2 ** (attempt - 1)) * (0.75 + Math.random() / 2);
        await pause(Math.max(backoff, problem.retrySeconds * 1000));
        if (signal.aborted) throw makeStopped();
      }
    }
  }

  #fail(upload, problem, stop) {
    if (ENDING_CODES.has(problem.code) || ENDING_STATUSES.has(problem.status)) {
      this.unsent.push({ ...upload, reason: problem.message });
      if (stop === this.#stop) this.#stopAll(problem);
    } else if (problem.status >= 400 && problem.status < 500 && !problem.isTransient) {
      this.refused += 1;
      this.lastRefusal = `${upload.name}: ${problem.message}`;
      this.#endedBytes += upload.file.size;
      this.dispatchEvent(new Event("refused"));
    } else if (!this.#isAbandoned) {
      this.unsent.push({ ...upload, reason: problem.message });
    }
  }

  #stopAll(problem) {
    this.unsent.push(...this.#waiting.reverse().map((upload) => ({ ...upload, reason: problem.message })));
    this.#waiting = [];
    this.#stop.abort();
    this.#changed();
  }

  #address({ name, encoding }) {
    if (isArchive(name)) return `${this.batchAddress}/archive${encoding ? `?encoding=${encoding}` : ""}`;
    return `${this.batchAddress}/images?name=${encodeURIComponent(name)}`;
  }

  #changed() {
    this.dispatchEvent(new Event("change"));
  }
}

function makeStopped() {
  return new Problem(0, "stopped", "Stopped.");
}
