// Shows how uploads stand: one bar for all, a line for each file in flight, and what could not be sent. The number of
// rows does not depend on the number of files.

const UNSENT_SHOWN = 50;
const number = new Intl.NumberFormat("en");

export class UploadsPanel {
  #uploads;
  #root;
  #isDue = false;
  #startedAt = performance.now();

  constructor(uploads, root) {
    this.#uploads = uploads;
    this.#root = root;
    uploads.addEventListener("change", () => this.#soon());
    this.#draw();
  }

  #soon() {
    if (this.#isDue) return;
    this.#isDue = true;
    // A timer rather than an animation frame: it runs in a hidden tab as well.
    setTimeout(() => {
      this.#isDue = false;
      this.#draw();
    }, 80);
  }

  #draw() {
    const uploads = this.#uploads;
    this.#root.hidden = !uploads.isBusy && uploads.unsent.length === 0;
    if (this.#root.hidden) return;
    const nodes = [this.#heading()];
    if (uploads.isBusy) nodes.push(...this.#progress());
    if (uploads.unsent.length > 0) nodes.push(...this.#unsent());
    // The buttons are drawn once and kept, so that none is replaced under a finger or loses the focus.
    const focused = document.activeElement?.dataset?.uploadsAction;
    this.#root.replaceChildren(...nodes);
    if (focused) this.#root.querySelector(`[data-uploads-action="${focused}"]`)?.focus();
  }

  #heading() {
    const { isBusy, sent, refused, total, unsent } = this.#uploads;
    const title = isBusy
      ? `Uploading ${number.format(sent + refused)} of ${number.format(total)} ${total === 1 ? "file" : "files"}`
      : `${number.format(unsent.length)} of ${number.format(total)} files could not be sent`;
    const head = element("div", "head", element("h2", "", title));
    if (isBusy) head.append(this.#button("stop", "Stop", "btn btn-sm btn-quiet push", () => this.#uploads.stop()));
    return head;
  }

  #progress() {
    const { sentBytes, totalBytes, active, refused, lastRefusal } = this.#uploads;
    const bar = progress(sentBytes, totalBytes, "Bytes sent");
    const seconds = (performance.now() - this.#startedAt) / 1000;
    const speed = seconds > 1 ? ` · ${size(sentBytes / seconds)}/s` : "";
    const line = element("p", "soft small mt-2 mb-0", `${size(sentBytes)} of ${size(totalBytes)}${speed}`);
    const list = element("ul", "");
    for (const upload of active) {
      const share = upload.file.size ? Math.round((100 * upload.loaded) / upload.file.size) : 100;
      list.append(
        element("li", "", element("span", "mono", upload.name), progress(upload.loaded, upload.file.size, upload.name), element("span", "soft", `${share} %`)),
      );
    }
    const nodes = [bar, line, list];
    if (refused > 0) nodes.push(element("p", "small mt-2 mb-0", `${number.format(refused)} refused. ${lastRefusal}`));
    return nodes;
  }

  #unsent() {
    const { unsent, isBusy } = this.#uploads;
    const list = element("ul", "");
    for (const { name, reason } of unsent.slice(0, UNSENT_SHOWN)) {
      const row = element("div", "small", element("span", "mono", name), ` ${reason}`);
      list.append(row);
    }
    if (unsent.length > UNSENT_SHOWN) list.append(element("div", "small soft", `and ${number.format(unsent.length - UNSENT_SHOWN)} more`));
    if (isBusy) return [list];
    return [list, this.#button("retry", "Try again", "btn btn-sm btn-primary mt-3", () => this.#uploads.retry())];
  }

  #button(action, text, classes, onClick) {
    const button = element("button", classes, text);
    button.type = "button";
    button.dataset.uploadsAction = action;
    // Pressed rather than clicked: a redraw between press and release would swallow the click.
    button.addEventListener("pointerdown", onClick);
    button.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === " ") onClick();
    });
    return button;
  }
}

export function size(bytes) {
  const units = ["B", "kB", "MB", "GB"];
  const power = Math.min(units.length - 1, bytes < 1 ? 0 : Math.floor(Math.log10(bytes) / 3));
  const value = bytes / 1000 ** power;
  return `${value.toFixed(power > 0 && value < 100 ? 1 : 0)} ${units[power]}`;
}

function progress(value, max, label) {
  const bar = element("progress", "");
  bar.max = max || 1;
  bar.value = value;
  bar.setAttribute("aria-label", label);
  return bar;
}

// Text goes in as text: names of files are data.
function element(tag, classes, ...children) {
  const node = document.createElement(tag);
  if (classes) node.className = classes;
  node.append(...children);
  return node;
}
