"""What the README says about JavaScript, pasted."""

import re

from tests.clients.client import ROOT
from tests.clients.javascript import texts
from tests.clients.test_js_client import started

README = (ROOT / "README.md").read_text()
IN_BROWSER, IN_NODE = re.findall(r"^```js\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


def test_in_a_browser(browser, hosted, upstream):
    run_id = started(hosted, upstream)
    last = len(texts(hosted, run_id))
    page = browser.new_page()
    printed = []
    page.on("console", lambda message: printed.append(message.text))
    page.goto(f"http://localhost:{hosted.port}/health")
    page.evaluate(f"(async () => {{ {IN_BROWSER.replace('RUN_ID', run_id)} }})()")
    while f"{last} of {last}: success" not in printed:
        page.wait_for_event("console")
    assert sum(bool(re.match(r"\d+ (step|variable)_", line)) for line in printed) == last
    page.close()


def test_in_node(hosted, upstream, client, client_file, tmp_path):
    assert "curl -o tailrace.mjs http://localhost:8080/client.js" in README
    assert "node watch.mjs RUN_ID" in README
    (tmp_path / "tailrace.mjs").write_bytes(client_file.read_bytes())
    program = tmp_path / "watch.mjs"
    program.write_text(IN_NODE.replace("localhost:8080", f"localhost:{hosted.port}"))
    run_id = started(hosted, upstream)
    watching = client("node", str(program), run_id)
    assert watching.ended() == texts(hosted, run_id, "?types=all")
    assert watching.errors.read_text().endswith("the run ended as success\n")
