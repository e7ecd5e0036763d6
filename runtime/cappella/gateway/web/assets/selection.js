// Keeps what the reader selected while elements are replaced around the same text.

/** Call `change`, which may replace elements below `root` but not their text, and select the same text again. */
export function keepingSelection(root, change) {
  const selection = getSelection();
  const isInside = selection.rangeCount && !selection.isCollapsed && selection.getRangeAt(0).intersectsNode(root);
  if (!isInside) return change();
  const { anchorNode, anchorOffset, focusNode, focusOffset } = selection;
  const ends = [placeOf(root, anchorNode, anchorOffset), placeOf(root, focusNode, focusOffset)];
  change();
  const [anchor, focus] = ends.map((end) => nodeAt(root, end));
  selection.setBaseAndExtent(...anchor, ...focus);
}

/** An end of a selection as a count of characters below `root`; one outside stays as it is. */
function placeOf(root, node, offset) {
  if (!root.contains(node)) return { node, offset };
  const before = document.createRange();
  before.setStart(root, 0);
  before.setEnd(node, offset);
  return { at: before.toString().length };
}

function nodeAt(root, { node, offset, at }) {
  if (node) return [node, offset];
  const walker = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
  let left = at;
  while (walker.nextNode()) {
    const { length } = walker.currentNode;
    if (left <= length) return [walker.currentNode, left];
    left -= length;
  }
  return [root, root.childNodes.length];
}
