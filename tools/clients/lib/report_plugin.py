"""pytest plugin (-p report_plugin): each test's verdict into $RESULTS; skips only as listed.

$SKIPS names a file of lines `BROKER TEST REASON`: BROKER is corelog, kafka or any; TEST is a test id relative to the
suite, or a prefix of one that ends with `*`. A test listed there for the broker under test does not run. Any other test
that skips itself fails, and so does a line that names no test, so that the list stays true.
"""

import os

import pytest

BROKER = os.environ.get("BROKER", "external")


class Skip:
    def __init__(self, line):
        self.broker, self.test, self.reason = line.split(None, 2)
        self.used = False

    def covers(self, nodeid):
        if self.test.endswith("*"):
            return nodeid.startswith(self.test[:-1])
        return nodeid == self.test


def read_skips():
    path = os.environ.get("SKIPS")
    if not path:
        return []
    with open(path) as f:
        return [Skip(line) for line in map(str.strip, f) if line and not line.startswith("#")]


def note(verdict, test, why=""):
    with open(os.environ["RESULTS"], "a") as f:
        f.write(f"{verdict}\t{test}\t{' '.join(str(why).split())[:300]}\n")


SKIPS = read_skips()


def listed(nodeid):
    """The line of the list that covers a test on this broker. Of two, the one for this broker alone wins."""
    found = None
    for skip in SKIPS:
        if skip.covers(nodeid):
            skip.used = True
            if skip.broker == BROKER or (skip.broker == "any" and found is None):
                found = skip
    return found


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    for item in items:
        skip = listed(item.nodeid)
        if skip:
            # Before the test's own marks, so that the listed reason is the one that is shown.
            item.add_marker(pytest.mark.skip(reason=f"listed: {skip.reason}"), append=False)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    test = item.nodeid
    if report.skipped:
        why = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        skip = listed(test)
        if skip:
            note("skipped", test, skip.reason)
        else:
            note("failed", test, f"skips itself and is not listed: {why}")
    elif report.failed:
        crash = getattr(report.longrepr, "reprcrash", None)
        note("failed", f"{test} ({report.when})", crash.message if crash else report.longrepr)
    elif report.when == "call":
        note("passed", test)


def pytest_collectreport(report):
    if report.failed:
        note("failed", report.nodeid, f"could not be loaded: {report.longrepr}")


def pytest_sessionfinish(session):
    if not session.items or session.config.getoption("keyword") or session.config.getoption("lf", False):
        return
    for skip in SKIPS:
        if not skip.used:
            note("failed", "skips", f"{skip.test} is listed and is no test")
