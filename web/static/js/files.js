// Turns what was dropped or chosen into a flat list of {name, file}. The name is the path below the dropped folder's parent.

// What systems and storages leave beside images; worker/intake/names.py skips the same in archives.
const LEFTOVERS =
  /(^|\/)((\.DS_Store|Thumbs\.db|ehthumbs(_vista)?\.db|desktop\.ini|Icon\r|\._[^/]*)$|(__MACOSX|@eaDir|\.AppleDouble|\.Spotlight-V100|\.Trashes|\.fseventsd|\$RECYCLE\.BIN|#recycle)\/)/i;
const order = new Intl.Collator("en", { numeric: true });

export function fromInput(input) {
  return sortByName([...input.files].map((file) => ({ name: file.webkitRelativePath || file.name, file })));
}

// Reads the entries before the first await, because the browser clears them when the drop event ends.
export async function fromDrop(transfer) {
  const entries = [...transfer.items].filter((one) => one.kind === "file").map((one) => one.webkitGetAsEntry?.() ?? one.getAsFile());
  const found = [];
  for (const entry of entries) {
    if (entry) await collect(entry, found);
  }
  return sortByName(found);
}

export function isArchive(name) {
  return name.toLowerCase().endsWith(".zip");
}

// Returns a name for a batch of these files: that of their folder or archive, else the present time.
export function batchName(files) {
  const folders = new Set(files.map(({ name }) => (name.includes("/") ? name.split("/")[0] : "")));
  const [folder] = folders;
  if (folders.size === 1 && folder) return folder;
  if (files.length === 1 && isArchive(files[0].name)) return files[0].name.slice(0, -4) || "archive";
  const moment = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "short" }).format(new Date());
  return `Images of ${moment}`;
}

async function collect(entry, found) {
  if (entry instanceof File) {
    found.push({ name: entry.name, file: entry });
  } else if (entry.isFile) {
    const file = await new Promise((resolve, reject) => entry.file(resolve, reject));
    found.push({ name: entry.fullPath.replace(/^\//, ""), file });
  } else {
    const reader = entry.createReader();
    for (let page = await read(reader); page.length > 0; page = await read(reader)) {
      for (const child of page) await collect(child, found);
    }
  }
}

// Reads up to a hundred entries; an empty list means that all were read.
function read(reader) {
  return new Promise((resolve, reject) => reader.readEntries(resolve, reject));
}

function sortByName(files) {
  return files.filter(({ name }) => !LEFTOVERS.test(name)).sort((one, other) => order.compare(one.name, other.name));
}
