"""The documents that a server shows: `/openapi.json`, and `/docs` for people.

The page is one piece of static HTML that asks nothing of any other host: it works on a closed network.
"""

from functools import cache
from html import escape

import msgspec

from picopay_api import __version__
from picopay_api.http import openapi
from picopay_api.http.describing import example, members
from picopay_api.http.operations import Operation
from picopay_api.http.resources import OPERATIONS

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; }
body { font: 16px/1.5 system-ui, sans-serif; margin: 0; display: grid; grid-template-columns: 15rem 1fr; }
nav { position: sticky; top: 0; height: 100vh; overflow: auto; padding: 1rem; box-sizing: border-box;
  border-right: 1px solid var(--line); font-size: .875rem; }
nav a { display: block; text-decoration: none; color: inherit; padding: .1rem 0; }
nav a:hover { text-decoration: underline; }
nav strong { display: block; margin-top: .75rem; }
main { padding: 1rem 2rem 4rem; max-width: 56rem; min-width: 0; }
code, pre { font: .875em/1.5 ui-monospace, monospace; }
pre { background: var(--soft); padding: .75rem; overflow: auto; border-radius: .4rem; }
section { border-top: 1px solid var(--line); padding-top: .5rem; margin-top: 2rem; }
table { border-collapse: collapse; width: 100%; font-size: .875rem; }
td { border-top: 1px solid var(--line); padding: .3rem .6rem .3rem 0; vertical-align: top; }
.method { font-weight: 700; }
.soft { opacity: .75; }
@media (max-width: 45rem) { body { display: block; } nav { position: static; height: auto; } }
"""
_INTRODUCTION = """
<h1>PicoPay</h1>
<p>Moves money on a double-entry ledger, exactly once. Amounts are integers of minor units: 1250 in USD
is $12.50. Send your API key as <code>Authorization: Bearer ppk_…</code>, and an
<code>Idempotency-Key</code> of your own with everything that moves money: sent again, it is done once.</p>
<p>Machines read <a href="/openapi.json">openapi.json</a>. Refusals are <code>application/problem+json</code>
with a stable <code>code</code>.</p>
<p class="soft">In the examples, <code>$URL</code> is this server and <code>$KEY</code> your API key.</p>
"""


@cache
def documents() -> dict[str, tuple[str, bytes]]:
    """Return each document by its path: media type and content."""
    return {
        "/openapi.json": ("application/json", msgspec.json.encode(openapi.document())),
        "/docs": ("text/html", _page().encode()),
    }


def _page() -> str:
    links, sections, resource = [], [], ""
    for operation in OPERATIONS:
        if operation.resource != resource:
            resource = operation.resource
            links.append(f"<strong>{escape(resource.replace('_', ' '))}</strong>")
        links.append(f'<a href="#{operation.name}">{escape(operation.summary)}</a>')
        sections.append(_section(operation))
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<title>PicoPay {__version__}</title><link rel="icon" href="data:,">'
        f"<style>{_STYLE}</style></head><body><nav>{''.join(links)}</nav>"
        f"<main>{_INTRODUCTION}{''.join(sections)}</main></body></html>"
    )


def _section(operation: Operation) -> str:
    parts = [
        f'<section id="{operation.name}"><h2>{escape(operation.summary)}</h2>',
        f'<p><span class="method">{operation.method}</span> <code>{escape(operation.path)}</code>',
        f' <span class="soft">scope {escape(operation.scope)}</span></p>',
        f"<p>{_prose(operation.description)}</p>" if operation.description else "",
        f"<pre>{escape(example(operation))}</pre>",
    ]
    rows = [(parameter.name, _prose(parameter.description)) for parameter in operation.parameters]
    if operation.body is not None:
        rows += [(name, _prose(kind)) for name, kind in members(operation.body)]
    if rows:
        parts.append(_table("Takes", rows))
    answer = [(name, _prose(kind)) for name, kind in members(operation.answer)]
    parts.append(_table(f"Answers {operation.status}", answer))
    refusals = [
        (f"{error.status} {error.code}", escape(error.title))
        for error in openapi.errors_of(operation)
    ]
    parts.append(_table("Refuses", refusals))
    return "".join([*parts, "</section>"])


def _table(title: str, rows: list[tuple[str, str]]) -> str:
    cells = "".join(
        f"<tr><td><code>{escape(name)}</code></td><td>{said}</td></tr>" for name, said in rows
    )
    return f"<details><summary>{escape(title)}</summary><table>{cells}</table></details>"


def _prose(text: str) -> str:
    """Turn the backticks of a description into code."""
    pieces = escape(text, quote=False).split("`")
    return "".join(
        f"<code>{piece}</code>" if place % 2 else piece for place, piece in enumerate(pieces)
    )
