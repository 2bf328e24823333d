// Makes one tree equal to another by changing only what differs. So focus, scroll position, loaded pictures and
// transitions stay when a page is refreshed. Rows are identified by data-key.

export function morph(from, to) {
  if (from.isEqualNode(to)) return;
  if (from.nodeType !== Node.ELEMENT_NODE || !isSame(from, to)) {
    from.replaceWith(to);
    return;
  }
  morphAttributes(from, to);
  morphChildren(from, to);
}

function isSame(from, to) {
  return from.nodeName === to.nodeName && keyOf(from) === keyOf(to);
}

function morphAttributes(from, to) {
  for (const { name, value } of [...to.attributes]) {
    if (from.getAttribute(name) !== value) from.setAttribute(name, value);
  }
  for (const { name } of [...from.attributes]) {
    const isOpen = name === "open" && "keep" in from.dataset; // the person opened it, so it stays open
    if (!to.hasAttribute(name) && !isOpen) from.removeAttribute(name);
  }
}

function morphChildren(from, to) {
  const wanted = [...to.childNodes];
  const wantedKeys = new Set(wanted.map(keyOf).filter(Boolean));
  const kept = new Map([...from.children].filter((child) => wantedKeys.has(keyOf(child))).map((child) => [keyOf(child), child]));
  wanted.forEach((node, index) => {
    const known = kept.get(keyOf(node));
    if (known) bringTo(from, index, known, kept);
    const current = from.childNodes[index];
    const isWantedLater = current !== known && kept.has(keyOf(current));
    if (!current || isWantedLater) from.insertBefore(node, current ?? null);
    else morph(current, node);
  });
  while (from.childNodes.length > wanted.length) from.lastChild.remove();
}

// Removes the nodes before `known` instead of moving it, because a moved node loses the focus.
function bringTo(parent, index, known, kept) {
  while (parent.childNodes[index] !== known && !kept.has(keyOf(parent.childNodes[index]))) parent.childNodes[index].remove();
  if (parent.childNodes[index] !== known) parent.insertBefore(known, parent.childNodes[index]);
}

function keyOf(node) {
  return node?.dataset?.key;
}
