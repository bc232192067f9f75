"""Events of `go tool test2json` on standard input into lines of $RESULTS. A test with subtests is told by its subtests."""

import json
import os
import sys

WORDS = {"pass": "passed", "fail": "failed", "skip": "skipped"}
verdicts, last_output = {}, {}
for line in sys.stdin:
    event = json.loads(line)
    test = event.get("Test")
    if not test:
        continue
    if event["Action"] == "output":
        text = event["Output"].strip()
        if text and not text.startswith(("=== ", "--- ")):
            last_output[test] = text
    elif event["Action"] in WORDS:
        verdicts[test] = WORDS[event["Action"]]

with open(os.environ["RESULTS"], "a") as results:
    for test, verdict in verdicts.items():
        if any(other.startswith(test + "/") for other in verdicts):
            continue
        why = "" if verdict == "passed" else last_output.get(test, "")
        results.write(f"{verdict}\t{test}\t{' '.join(why.split())[:300]}\n")
