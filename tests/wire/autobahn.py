"""The Autobahn cases of RFC 6455 against a server: ``python -m tests.wire.autobahn URL CONCURRENCY CASE…``.

Prints their results as JSON. A process of its own, because the cases change modules of whoever runs them.
"""

import asyncio
import json
import os
import sys

from kosoku import FailureError, run_fuzzingclient


async def results(url: str, concurrency: int, cases: list[str]) -> list:
    try:
        return await run_fuzzingclient(url, cases, concurrency=concurrency)
    except FailureError as failure:
        return failure.results


def plain(result) -> dict:
    return {
        "case": result.case_id,
        "passed": result.passed,
        "verdict": f"{result.behavior.value}, close {result.behavior_close.value}",
        "why": f"{result.result} {result.result_close}",
        "received": result.received,
        "expected": list(result.expected.values()),
        "expected_close": result.expected_close,
        "code": result.remote_close_code,
        "reason": result.remote_close_reason,
        "closed_by_case": result.closed_by_me,
        "dropped_by_case": result.dropped_by_me,
        "clean": result.was_clean,
        "ms": result.duration,
    }


if __name__ == "__main__":
    url, concurrency, *cases = sys.argv[1:]
    print(
        json.dumps([plain(each) for each in asyncio.run(results(url, int(concurrency), cases))]), flush=True
    )
    os._exit(0)  # kosoku's own threads sometimes abort an interpreter that ends in order
