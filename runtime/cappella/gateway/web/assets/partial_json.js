// Reads JSON that is still being written.

/** The value so far, or undefined: open strings, lists and objects are closed, a key without a value is left out. */
export function parsePartial(text) {
  return new Reader(text).value();
}

const INCOMPLETE = undefined;
const LITERALS = { true: true, false: false, null: null };

class Reader {
  constructor(text) {
    this.text = text;
    this.at = 0;
  }

  value() {
    const sign = this.peek();
    if (sign === "{") return this.object();
    if (sign === "[") return this.list();
    if (sign === '"') return this.string();
    return this.scalar();
  }

  peek() {
    while (/\s/.test(this.text[this.at] ?? "")) this.at += 1;
    return this.text[this.at];
  }

  /** Skip `sign` if it comes next; returns whether it did. */
  accept(sign) {
    if (this.peek() !== sign) return false;
    this.at += 1;
    return true;
  }

  object() {
    const found = {};
    this.at += 1;
    while (this.peek() === '"') {
      const key = this.string();
      if (!this.accept(":")) break;
      const value = this.value();
      if (value === INCOMPLETE) break;
      found[key] = value;
      if (!this.accept(",")) break;
    }
    this.accept("}");
    return found;
  }

  list() {
    const found = [];
    this.at += 1;
    while (this.peek() !== "]") {
      const value = this.value();
      if (value === INCOMPLETE) break;
      found.push(value);
      if (!this.accept(",")) break;
    }
    this.accept("]");
    return found;
  }

  string() {
    const from = this.at;
    for (this.at += 1; this.at < this.text.length && this.text[this.at] !== '"'; this.at += 1) {
      if (this.text[this.at] === "\\") this.at += 1;
    }
    const whole = this.at < this.text.length;
    this.at += 1;
    const inside = this.text.slice(from + 1, whole ? this.at - 1 : undefined);
    return unescaped(whole ? inside : inside.replace(/\\(u[0-9a-fA-F]{0,3})?$/, ""));
  }

  scalar() {
    const [word] = /^[-+.\w]*/.exec(this.text.slice(this.at));
    this.at += word.length;
    // At the end of the text it may be incomplete: 1 may become 12.
    if (!word || this.at >= this.text.length) return INCOMPLETE;
    return word in LITERALS ? LITERALS[word] : Number.isNaN(Number(word)) ? INCOMPLETE : Number(word);
  }
}

function unescaped(inside) {
  try {
    return JSON.parse(`"${inside}"`);
  } catch {
    return inside;
  }
}
