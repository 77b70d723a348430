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
td { padding: .2rem .8rem .2rem 0; vertical-align: top }
b { display: inline-block; min-width: 4.5rem } :root { color-scheme: light dark }
"""

_REFERENCE = re.compile(r"#/components/schemas/(\w+)")


def page_of(document: dict[str, Any]) -> bytes:
    """Return the page of an OpenAPI document."""
    info = document["info"]
    title = f"{escape(info['title'])} {escape(info['version'])}"
    parts = [
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title><style>{_STYLE}</style>",
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
        f"{escape(operation['summary'])}</summary>",
    ]
    if parameters := operation.get("parameters"):
        parts.append("<h4>Parameters</h4><table>")
        parts += [
            f"<tr><td><code>{escape(parameter['name'])}</code> ({parameter['in']})"
            f"<td>{escape(parameter.get('description', ''))}"
            f"<td><code>{escape(json.dumps(parameter['schema']))}</code>"
            for parameter in parameters
        ]
        parts.append("</table>")
    if "requestBody" in operation:
        parts += ["<h4>Body</h4>", _json(operation["requestBody"]["content"]["application/json"]["schema"])]
    return "".join([*parts, "<h4>Answers</h4><table>", *_answers(operation, document), "</table></details>"])


def _answers(operation: dict[str, Any], document: dict[str, Any]) -> Iterator[str]:
    for status, response in operation["responses"].items():
        found = response
        if "$ref" in response:
            found = document["components"]["responses"][response["$ref"].rpartition("/")[2]]
        kinds = "".join(
            f"<code>{escape(media_type)}</code> {_name(content['schema'])} "
            for media_type, content in found.get("content", {}).items()
        )
        yield f"<tr><td><code>{status}</code><td>{escape(found['description'])}<td>{kinds}"


def _name(schema: dict[str, Any]) -> str:
    name = escape(schema.get("$ref", "").rpartition("/")[2])
    return f"<a href='#{name}'>{name}</a>" if name else ""


def _json(schema: dict[str, Any]) -> str:
    linked = _REFERENCE.sub(r"<a href='#\1'>\g<0></a>", escape(json.dumps(schema, indent=2)))
    return f"<pre>{linked}</pre>"
