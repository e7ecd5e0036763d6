// Markdown as a tree: what it reads, and that nothing but it comes out.
import assert from "node:assert/strict";
import test from "node:test";

import { markdown, markdownBlocks } from "../../runtime/cappella/gateway/web/assets/markdown.js";

/** A tree as compact text: tags as `tag(...)`. */
function shown(nodes) {
  return nodes
    .map((node) =>
      typeof node === "string" ? node : `${node.tag}${propertiesOf(node)}(${shown(node.children)})`,
    )
    .join("");
}
function propertiesOf({ tag, href, tex, display, isOpen, isDone, name }) {
  const formula = tag === "math" ? `<${display ? "display " : ""}${isOpen ? "open " : ""}${tex}>` : "";
  return formula || [href, name].filter(Boolean).map((each) => `<${each}>`).join("") + (isDone ? "<done>" : "");
}
const read = (text) => shown(markdown(text));

test("blocks are told apart", () => {
  assert.equal(read("# Title\nText\nmore\n\n> said\n\n---"), "h3(Title)p(Textbr()more)blockquote(p(said))hr()");
  assert.equal(
    read("- one\n- two\n  - inner\n\n3. three\n4. four"),
    "ul(li(one)li(twoul(li(inner))))ol(li(three)li(four))",
  );
  assert.equal(markdown("3. three")[0].start, 3);
});

test("a table has a head, and its rows no more cells than that", () => {
  assert.equal(
    read("| a | b |\n|---|--:|\n| 1 | `x` | 9 |"),
    "table(thead(tr(th(a)th(b)))tbody(tr(td(1)td(code(x)))))",
  );
  assert.equal(markdown("| a | b |\n|---|--:|\n| 1 | 2 |")[0].children[1].children[0].children[1].align, "right");
});

test("code is taken as it is, also before its end has come", () => {
  assert.equal(read("```js\nlet a = **b**;\n```\nafter"), "pre(code(let a = **b**;))p(after)");
  assert.equal(read("```\nopen <b>"), "pre(code(open <b>))");
  assert.equal(markdown("```python\nx\n```")[0].language, "python");
});

test("emphasis needs its marks at words, and names with underscores have none", () => {
  assert.equal(
    read("*a* **b _c_** ~~d~~ snake_case_name 2 * 3 * 4 \\*e\\*"),
    "p(em(a) strong(b em(c)) del(d) snake_case_name 2 * 3 * 4 *e*)",
  );
});

test("links lead to http and https, and to nothing else", () => {
  assert.equal(read("[a](https://x.y/z_(1))"), "p(a<https://x.y/z_(1)>(a))");
  assert.equal(read("see https://x.y/z."), "p(see a<https://x.y/z>(https://x.y/z).)");
  for (const address of [
    "javascript:alert(1)",
    "data:text/html,x",
    "//x.y",
    "file:///etc/passwd",
    " https",
    "JaVaScRiPt:x",
  ]) {
    assert.ok(!read(`[a](${address})`).includes("a<"), address);
  }
});

test("an image is a link: nothing is fetched", () => {
  assert.equal(read("![cat](https://x.y/cat.png)"), "p(a<https://x.y/cat.png>(cat))");
});

test("HTML stays text", () => {
  assert.equal(
    read("<img src=x onerror=alert(1)> <script>a</script>"),
    "p(<img src=x onerror=alert(1)> <script>a</script>)",
  );
});

test("formulas keep every byte of their TeX, and prices are none", () => {
  assert.equal(read(String.raw`so $2.4\,\text{TB}$ and \( t \approx 3 \).`), String.raw`p(so math<2.4\,\text{TB}>() and math<t \approx 3>().)`);
  assert.equal(read("**is $a*b$**"), "p(strong(is math<a*b>()))");
  assert.equal(read("\\[ x_1 \\] or $$y$$"), "p(math<display x_1>() or math<display y>())");
  assert.equal(read("text\n$$\na\n+b\n$$\nafter"), "p(text)math<display a\n+b>()p(after)");
  for (const price of ["It costs $5 and $10, or $5-$10.", "PATH=$HOME/bin:$PATH", "US$3 or A$4", "`$x$`"]) {
    assert.ok(!read(price).includes("math"), price);
  }
});

test("a displayed formula that is still written is open, and one that an empty line ends is text", () => {
  assert.equal(read("$$\na\n+b"), "math<display open a\n+b>()");
  assert.equal(read("$$\na\n\nb"), "p($$br()a)p(b)");
});

test("tasks, footnotes, line breaks and signs of HTML are read", () => {
  assert.equal(read("- [ ] one\n- [x] two\n- [a] three"), "ul(li(check()one)li(check<done>()two)li([a] three))");
  assert.equal(read("so[^1].\n\n[^1]: The *note*,\n  more.\n[^b]: Other."), "p(sonoteref<1>().)footnote<1>(The em(note),br()more.)footnote<b>(Other.)");
  assert.equal(read("a<br>b &amp; &lt;c&gt;"), "p(abr()b & <c>)");
  assert.equal(read("***a***"), "p(strong(em(a)))");
});

test("a block is final once another has begun after it with a whole line", () => {
  const finals = (text) => markdownBlocks(text).map(({ start, isFinal }) => [start, isFinal]);
  assert.deepEqual(finals("One\n\nTwo"), [[0, false], [5, false]]);
  assert.deepEqual(finals("One\n\nTwo\n"), [[0, true], [5, false]]);
  assert.deepEqual(finals("1. a\n\n2"), [[0, false], [6, false]]);
  assert.deepEqual(finals("1. a\n\n2. b\n"), [[0, false]]);
  assert.deepEqual(finals("a\r\n\r\nb\tc\r\n# d\r\n"), [[0, true], [5, true], [10, false]]);
});

test("a text read as it grows, finished blocks only once, gives the same blocks as the whole", () => {
  const text = "# T\n\na\n\n- b\n\n  c\n- [ ] d\n\n```js\n\nx\n```\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n$$\nx\n$$\n> q\n\n1. a\n\n2. b\n\n[^1]: n\n\nend";
  let finished = "";
  const nodes = [];
  for (let end = 1; end <= text.length; end += 1) {
    const found = markdownBlocks(text.slice(finished.length, end));
    const open = found.findIndex((block) => !block.isFinal);
    nodes.push(...found.slice(0, open).map((block) => block.node));
    if (open > 0) finished = text.slice(0, finished.length + found[open].start);
  }
  assert.deepEqual([...nodes, ...markdown(text.slice(finished.length))], markdown(text));
});

test("a text made to be slow is not", () => {
  const evil = [
    "`".repeat(9999),
    "*".repeat(20000),
    "[".repeat(20000),
    "**a".repeat(9999),
    "_a ".repeat(9999),
    "- ".repeat(5000),
    "> ".repeat(5000),
    "|".repeat(9999),
    `${"|".repeat(5000)}\n${"|-".repeat(5000)}`,
    "`a``b".repeat(5000),
    "https://".repeat(5000),
    "$a ".repeat(9999),
    "$$a ".repeat(9999),
    "\\(".repeat(9999),
    "\\[\n".repeat(9999),
    "$$\na\n\n".repeat(2000),
    "[^a".repeat(9999),
    "a".repeat(50_000),
    `${"a".repeat(50_000)}@`,
  ];
  const began = process.cpuUsage();
  for (const text of evil) markdown(text);
  // A backtracking rule would take minutes for any of these.
  assert.ok(process.cpuUsage(began).user < 10_000_000);
});

test("deep nests end", () => {
  assert.doesNotThrow(() => markdown(`${"> ".repeat(2000)}x`));
  assert.doesNotThrow(() => markdown(Array.from({ length: 500 }, (_, at) => `${"  ".repeat(at)}- x`).join("\n")));
});
