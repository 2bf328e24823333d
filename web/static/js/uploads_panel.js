// Shows the progress of uploads: one bar for all files, a line for each file that is being sent, and the files that
// could not be sent. The number of rows does not grow with the number of files.

import { morph } from "./morph.js";

const UNSENT_SHOWN = 50;
const number = new Intl.NumberFormat("en");

export class UploadsPanel {
  #uploads;
  #root;
  #isDue = false;
  #begun = null; // the time when these uploads began, and the bytes sent before

  constructor(uploads, root) {
    this.#uploads = uploads;
    this.#root = root;
    uploads.addEventListener("change", () => this.#drawSoon());
    root.addEventListener("click", (event) => {
      const action = event.target.dataset.press;
      if (action === "stop") uploads.stop();
      if (action === "retry") uploads.retry();
    });
    this.#draw();
  }

  #drawSoon() {
    if (this.#isDue) return;
    this.#isDue = true;
    // Uses a timer and not an animation frame, because timers also run in a hidden tab.
    setTimeout(() => {
      this.#isDue = false;
      this.#draw();
    }, 80);
  }

  #draw() {
    const uploads = this.#uploads;
    if (!uploads.isBusy) this.#begun = null;
    else this.#begun ??= { at: performance.now(), bytes: uploads.sentBytes };
    this.#root.hidden = !uploads.isBusy && uploads.unsent.length === 0;
    if (this.#root.hidden) return;
    const wanted = this.#root.cloneNode(false);
    wanted.append(this.#heading());
    if (uploads.isBusy) wanted.append(...this.#progress());
    if (uploads.unsent.length > 0) wanted.append(...this.#unsent());
    morph(this.#root, wanted);
  }

  #heading() {
    const { isBusy, sent, refused, total, unsent } = this.#uploads;
    const title = isBusy
      ? `Uploading ${number.format(sent + refused)} of ${number.format(total)} ${total === 1 ? "file" : "files"}`
      : `${number.format(unsent.length)} of ${number.format(total)} files could not be sent`;
    const head = element("div", "head", element("h2", "", title));
    if (isBusy) head.append(button("stop", "Stop", "btn btn-sm btn-quiet push"));
    return head;
  }

  #progress() {
    const { sentBytes, totalBytes, active, refused, lastRefusal, sealWhenSent } = this.#uploads;
    const bar = progress(sentBytes, totalBytes, "Bytes sent");
    const seconds = (performance.now() - this.#begun.at) / 1000;
    const speed = seconds > 1 ? ` · ${size((sentBytes - this.#begun.bytes) / seconds)}/s` : "";
    const then = sealWhenSent ? "the upload is finished when all files are sent" : "the batch stays open";
    const line = element("p", "soft small mt-2 mb-0", `${size(sentBytes)} of ${size(totalBytes)}${speed} · ${then}`);
    const list = element("ul", "");
    for (const { name, file, loaded } of active) {
      const share = file.size ? Math.round((100 * loaded) / file.size) : 100;
      const percent = element("span", "soft", `${share} %`);
      list.append(element("li", "", element("span", "mono", name), progress(loaded, file.size, name), percent));
    }
    const nodes = [bar, line, list];
    if (refused > 0) nodes.push(element("p", "small mt-2 mb-0", `${number.format(refused)} refused. ${lastRefusal}`));
    return nodes;
  }

  #unsent() {
    const { unsent, isBusy } = this.#uploads;
    const list = element("ul", "unsent");
    for (const { name, reason } of unsent.slice(0, UNSENT_SHOWN)) {
      list.append(element("li", "", element("span", "mono", name), ` ${reason}`));
    }
    const more = unsent.length - UNSENT_SHOWN;
    if (more > 0) list.append(element("li", "soft", `and ${number.format(more)} more`));
    if (isBusy) return [list];
    return [list, button("retry", "Try again", "btn btn-sm btn-primary mt-3")];
  }
}

function size(bytes) {
  const units = ["B", "kB", "MB", "GB"];
  const power = Math.min(units.length - 1, bytes < 1 ? 0 : Math.floor(Math.log10(bytes) / 3));
  const value = bytes / 1000 ** power;
  return `${value.toFixed(power > 0 && value < 100 ? 1 : 0)} ${units[power]}`;
}

function button(action, text, classes) {
  const node = element("button", classes, text);
  node.type = "button";
  node.dataset.press = action;
  return node;
}

function progress(value, max, label) {
  const bar = element("progress", "");
  bar.setAttribute("max", max || 1);
  bar.setAttribute("value", value);
  bar.setAttribute("aria-label", label);
  return bar;
}

// Adds texts as text nodes and never as markup, because names of files are data.
function element(tag, classes, ...children) {
  const node = document.createElement(tag);
  if (classes) node.className = classes;
  node.append(...children);
  return node;
}
