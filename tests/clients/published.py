"""The published guide as a source of programs: its code blocks, with only addresses and ids replaced."""

import re
from pathlib import Path

GUIDE = (Path(__file__).parent / "guide.md").read_text()
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def block(language: str, says: str) -> str:
    """Return the guide's first code block in ``language`` that says ``says``, as it was published."""
    return next(text for lang, text in _BLOCK.findall(GUIDE) if lang == language and says in text)


def examples() -> list[str]:
    """Return the JSON of the guide's example messages."""
    return [text for language, text in _BLOCK.findall(GUIDE) if language == "json"]


def at(text: str, port: int, *, upstream: str = "", run_id: str = "") -> str:
    """Return a block of the guide for a service on ``port``, its upstream, and one of its runs."""
    assert "localhost:8080" in text
    text = text.replace("localhost:8080", f"localhost:{port}")
    text = text.replace("https://jsonplaceholder.typicode.com/posts/1", upstream)
    return re.sub(r"<RUN_ID>|YOUR_RUN_ID_HERE|\bRUN_ID\b", run_id, text)
