"""One page of the documentation as HTML that needs no script and loads nothing from elsewhere."""

import re
from collections.abc import Iterable
from html import escape

from markdown_it import MarkdownIt
from markdown_it.token import Token

from cappella.docs.topics import Topic

_MARKDOWN = MarkdownIt("commonmark", {"html": False}).enable("table")
_TEMPLATE = """<!doctype html>
<html lang="en">
<head>
  <meta charset="utf-8">
  <meta name="viewport" content="width=device-width, initial-scale=1">
  <title>{title} · Cappella</title>
  <link rel="icon" href="/assets/icon.svg" type="image/svg+xml">
  <link rel="stylesheet" href="/assets/base.css">
  <link rel="stylesheet" href="/assets/docs.css">
</head>
<body>
  <a class="skip" href="#main">Skip to the content</a>
  <header class="top"><a class="brand" href="/"><img src="/assets/icon.svg" alt="" width="24" height="24">Cappella</a></header>
  <div class="docs">
    <nav aria-label="Documentation"><ul>
{links}
    </ul></nav>
    <main id="main" tabindex="-1">
{content}
    </main>
  </div>
</body>
</html>
"""


def html(topic: Topic, others: Iterable[Topic]) -> str:
    """The page of `topic`, with links to all of `others`."""
    current = ' aria-current="page"'
    links = "\n".join(
        f'      <li><a href="/docs/{each.name}"{current if each.name == topic.name else ""}>{escape(each.title)}</a></li>'
        for each in others
    )
    return _TEMPLATE.format(title=escape(topic.title), links=links, content=_content(topic.text))


def _content(text: str) -> str:
    tokens = _MARKDOWN.parse(text)
    for token, following in zip(tokens, [*tokens[1:], None], strict=True):
        if token.type == "heading_open" and following is not None:
            token.attrSet("id", anchor(following.content))
        for child in token.children or ():
            _point_at_page(child)
    rendered: str = _MARKDOWN.renderer.render(tokens, _MARKDOWN.options, {})
    # A wide table scrolls in a frame of its own, also by keyboard.
    frame = '<div class="scrolls" tabindex="0" role="group" aria-label="Table"><table>'
    return rendered.replace("<table>", frame).replace("</table>", "</table></div>")


def anchor(heading: str) -> str:
    """The id of a heading, as in its link: words in small letters with hyphens between them."""
    return "-".join(re.findall(r"[a-z0-9]+", heading.lower()))


def _point_at_page(token: Token) -> None:
    """Links between the files are links between the pages."""
    if token.type == "link_open" and (found := re.fullmatch(r"([a-z-]+)\.md(#.*)?", str(token.attrGet("href")))):
        token.attrSet("href", f"/docs/{found[1]}{found[2] or ''}")
