"""Keeps back what TensorFlow and LiteRT log about themselves."""

import contextlib
import os
import re
import sys
import tempfile

_VARIABLE = "TF_CPP_MIN_LOG_LEVEL"
# TensorFlow 2.21 writes these before it looks at the variable; LiteRT's does not depend on it.
_NOISE = re.compile(
    rb"I\d{4} |WARNING: All log messages before absl::InitializeLog|"
    rb"INFO: (Created TensorFlow Lite|Initialized TensorFlow Lite)"
)


@contextlib.contextmanager
def without_noise():
    """Writes to stderr at the end, without the lines that only say how the runtime is set up.

    Where `TF_CPP_MIN_LOG_LEVEL` is set, everything that it lets pass is written at once, also what
    a crash of the process would take away.
    """
    if _VARIABLE in os.environ:
        yield
        return
    os.environ[_VARIABLE] = "3"
    with tempfile.TemporaryFile() as caught:
        sys.stderr.flush()
        stderr = os.dup(2)
        os.dup2(caught.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(stderr, 2)
            os.close(stderr)
            del os.environ[_VARIABLE]
            caught.seek(0)
            for line in caught:
                if not _NOISE.match(line):
                    os.write(2, line)
