// Makes one tree equal to another by changing only what differs, so that focus, scrolling, loaded pictures and
// transitions survive a refresh. Rows are told apart by data-key.

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
  return from.nodeName === to.nodeName && from.dataset?.key === to.dataset?.key;
}

function morphAttributes(from, to) {
  for (const { name, value } of [...to.attributes]) {
    if (from.getAttribute(name) !== value) from.setAttribute(name, value);
  }
  for (const { name } of [...from.attributes]) {
    const isOpen = name === "open" && "keep" in from.dataset; // opened by the person, not by the page
    if (!to.hasAttribute(name) && !isOpen) from.removeAttribute(name);
  }
}

function morphChildren(from, to) {
  const wanted = [...to.childNodes];
  const kept = new Map([...from.children].filter((child) => child.dataset.key).map((child) => [child.dataset.key, child]));
  wanted.forEach((node, index) => {
    const known = node.dataset?.key && kept.get(node.dataset.key);
    if (known && from.childNodes[index] !== known) from.insertBefore(known, from.childNodes[index] ?? null);
    const current = from.childNodes[index];
    if (current) morph(current, node);
    else from.append(node);
  });
  while (from.childNodes.length > wanted.length) from.lastChild.remove();
}
