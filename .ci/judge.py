"""Read a JUnit file: fail if a test was skipped although what it needs is there; print the closing line."""

import os
import shutil
import sys
import xml.etree.ElementTree as ElementTree

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def main(path: str) -> int:
    """Judge the file and return the exit status."""
    cases = list(ElementTree.parse(path).getroot().iter("testcase"))
    skipped = {case: case.find("skipped") for case in cases}
    reasons = {case: str(note.get("message")) for case, note in skipped.items() if note is not None}
    failed = [case for case in cases if case.find("failure") is not None or case.find("error") is not None]
    needs = ["not installed", "could not import"]  # the environment is the project's own: it has everything
    if os.environ.get("MAXAFFINE_ASSETS"):
        needs.append("assets")
    if any(shutil.which(browser) for browser in BROWSERS):
        needs += ["chromium", "browser"]
    else:
        reasons = {case: why.replace("is installed", "is here") for case, why in reasons.items()}
    wrong = {case: why for case, why in reasons.items() if any(word in why.lower() for word in needs)}
    for case, why in wrong.items():
        print(f"skipped although what it needs is here: {case.get('classname')}::{case.get('name')}: {why}")
    print(f"{len(cases) - len(reasons) - len(failed)} passed, {len(failed)} failed, {len(reasons)} skipped")
    return bool(wrong or failed or not cases)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
