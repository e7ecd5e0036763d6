// JSON that is still being written, read as far as it has come.

/** The value so far: open texts, lists and objects are closed, a key without a value is left out; or undefined. */
export function parsePartial(text) {
  return new Reader(text).value();
}

const NOTHING = undefined;
const LITERALS = { true: true, false: false, null: null };

class Reader {
  constructor(text) {
    this.text = text;
    this.at = 0;
  }

  value() {
    const sign = this.next();
    if (sign === "{") return this.object();
    if (sign === "[") return this.list();
    if (sign === '"') return this.string();
    return this.scalar();
  }

  next() {
    while (/\s/.test(this.text[this.at] ?? "")) this.at += 1;
    return this.text[this.at];
  }

  /** Past `sign`, if it comes next. */
  takes(sign) {
    if (this.next() !== sign) return false;
    this.at += 1;
    return true;
  }

  object() {
    const found = {};
    this.at += 1;
    while (this.next() === '"') {
      const key = this.string();
      if (!this.takes(":")) break;
      const value = this.value();
      if (value === NOTHING) break;
      found[key] = value;
      if (!this.takes(",")) break;
    }
    this.takes("}");
    return found;
  }

  list() {
    const found = [];
    this.at += 1;
    while (this.next() !== "]") {
      const value = this.value();
      if (value === NOTHING) break;
      found.push(value);
      if (!this.takes(",")) break;
    }
    this.takes("]");
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
    // At the very end it may go on: 1 may become 12.
    if (!word || this.at >= this.text.length) return NOTHING;
    return word in LITERALS ? LITERALS[word] : Number.isNaN(Number(word)) ? NOTHING : Number(word);
  }
}

function unescaped(inside) {
  try {
    return JSON.parse(`"${inside}"`);
  } catch {
    return inside;
  }
}
