// Markdown as a tree: what it reads, and that nothing but it comes out.
import assert from "node:assert/strict";
import test from "node:test";

import { markdown } from "../../runtime/cappella/gateway/web/assets/markdown.js";

/** A tree as compact text: tags as `tag(...)`. */
function shown(nodes) {
  return nodes
    .map((node) =>
      typeof node === "string" ? node : `${node.tag}${node.href ? `<${node.href}>` : ""}(${shown(node.children)})`,
    )
    .join("");
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
  ];
  const began = performance.now();
  for (const text of evil) markdown(text);
  // A backtracking rule would take minutes for any of these.
  assert.ok(performance.now() - began < 10_000);
});

test("deep nests end", () => {
  assert.doesNotThrow(() => markdown(`${"> ".repeat(2000)}x`));
  assert.doesNotThrow(() => markdown(Array.from({ length: 500 }, (_, at) => `${"  ".repeat(at)}- x`).join("\n")));
});
