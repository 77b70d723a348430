"""The OpenAPI document as one HTML page: plain to read, and it loads nothing."""

import json
import re
from collections.abc import Iterator
from html import escape
from typing import Any

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
details { border: 1px solid #8884; border-radius: 6px; margin: .5rem 0; padding: .4rem .8rem }
summary { cursor: pointer } code, pre { font: 14px/1.4 ui-monospace, monospace }
pre { overflow-x: auto; background: #8881; padding: .6rem }
code { overflow-wrap: anywhere } table { width: 100%; border-collapse: collapse } h3 { margin: 1rem 0 .3rem }
th, td { padding: .2rem .8rem .2rem 0; vertical-align: top; text-align: left }
b { display: inline-block; min-width: 4.5rem } :root { color-scheme: light dark }
@media (max-width: 40rem) {
  thead { display: none } td { display: block } td:last-child { padding-bottom: .8rem }
}
"""

_REFERENCE = re.compile(r"#/components/schemas/(\w+)")


def page_of(document: dict[str, Any]) -> bytes:
    """Return the page of an OpenAPI document."""
    info = document["info"]
    title = f"{escape(info['title'])} {escape(info['version'])}"
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8>",
        '<meta name=viewport content="width=device-width, initial-scale=1"><link rel=icon href="data:,">',
        f"<title>{title}</title><style>{_STYLE}</style>",
        f"<h1>{title}</h1><p>{escape(info['description'])} ",
        "<a href=/schema/openapi.json>openapi.json</a> · ",
        "<a href=/schema/asyncapi.json>asyncapi.json</a>: the stream's messages and close codes</p>",
    ]
    by_tag: dict[str, list[str]] = {}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            by_tag.setdefault(operation["tags"][0], []).append(_operation(method, path, operation, document))
    for tag, listed in by_tag.items():
        parts += [f"<h2>{escape(tag)}</h2>", *listed]
    parts.append("<h2>schemas</h2>")
    for name, schema in document["components"]["schemas"].items():
        parts.append(f"<details id='{escape(name)}'><summary><code>{escape(name)}</code></summary>")
        parts.append(f"{_json(schema)}</details>")
    return "\n".join(parts).encode()


def _operation(method: str, path: str, operation: dict[str, Any], document: dict[str, Any]) -> str:
    parts = [
        f"<details><summary><b>{method.upper()}</b> <code>{escape(path)}</code><br>",
        f"{_text(operation['summary'])}</summary>",
    ]
    if parameters := operation.get("parameters"):
        parts.append(f"<h3>Parameters</h3>{_table('name', 'what it is', 'schema')}")
        parts += [
            f"<tr><td><code>{escape(parameter['name'])}</code> ({parameter['in']})"
            f"<td>{_text(parameter.get('description', ''))}"
            f"<td><code>{escape(json.dumps(parameter['schema']))}</code>"
            for parameter in parameters
        ]
        parts.append("</table>")
    if "requestBody" in operation:
        parts += ["<h3>Body</h3>", _json(operation["requestBody"]["content"]["application/json"]["schema"])]
    answers = f"<h3>Answers</h3>{_table('status', 'when', 'content')}"
    return "".join([*parts, answers, *_answers(operation, document), "</table></details>"])


def _table(*columns: str) -> str:
    cells = "".join(f"<th scope=col>{column}" for column in columns)
    return f"<table><thead><tr>{cells}<tbody>"


def _answers(operation: dict[str, Any], document: dict[str, Any]) -> Iterator[str]:
    for status, response in operation["responses"].items():
        found = response
        if "$ref" in response:
            found = document["components"]["responses"][response["$ref"].rpartition("/")[2]]
        kinds = "".join(
            f"<code>{escape(media_type)}</code> {_name(content['schema'])} "
            for media_type, content in found.get("content", {}).items()
        )
        yield f"<tr><td><code>{status}</code><td>{_text(found['description'])}<td>{kinds}"


def _text(markdown: str) -> str:
    """Return a description of the document: its only markup is code, in two backticks."""
    return re.sub(r"``(.+?)``", r"<code>\1</code>", escape(markdown))


def _name(schema: dict[str, Any]) -> str:
    name = escape(schema.get("$ref", "").rpartition("/")[2])
    return f"<a href='#{name}'>{name}</a>" if name else ""


def _json(schema: dict[str, Any]) -> str:
    linked = _REFERENCE.sub(r"<a href='#\1'>\g<0></a>", escape(json.dumps(schema, indent=2)))
    return f"<pre>{linked}</pre>"
