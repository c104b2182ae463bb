"""Runs pytest with the arguments it is given: the main program of each `pytest_test`."""

import os
import sys

import pytest


class Ran:
    """Notes whether a test ran: pytest calls a run in which all were skipped a success."""

    def __init__(self):
        self.any = False

    def pytest_runtest_logreport(self, report):
        self.any = self.any or (report.when == "call" and not report.skipped)


def main() -> int:
    """Runs pytest; returns its exit status."""
    folder = os.environ["TEST_TMPDIR"]
    os.environ["HOME"] = folder  # Keras and Matplotlib write there
    arguments = ["-c", "pyproject.toml", "-p", "no:cacheprovider", f"--basetemp={folder}/pytest"]
    if "XML_OUTPUT_FILE" in os.environ:
        arguments.append(f"--junitxml={os.environ['XML_OUTPUT_FILE']}")
    if "TESTBRIDGE_TEST_ONLY" in os.environ:  # --test_filter
        arguments += ["-k", os.environ["TESTBRIDGE_TEST_ONLY"]]
    ran = Ran()
    status = pytest.main([*arguments, *sys.argv[1:]], plugins=[ran])
    if status == pytest.ExitCode.OK and not ran.any:
        print("All tests were skipped, so nothing was tested.", file=sys.stderr)
        return pytest.ExitCode.NO_TESTS_COLLECTED
    return status


if __name__ == "__main__":
    sys.exit(main())
