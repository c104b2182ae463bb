"""The percentage in force while a model runs."""

import contextlib
import contextvars

from keras_tesla.percentages import check_percentage

_current = contextvars.ContextVar("keras_tesla_percentage", default=100)
_reads: contextvars.ContextVar[list | None] = contextvars.ContextVar("reads", default=None)


def current_percentage() -> int:
    """Returns the percentage at which IDP layers run now; 100 outside of any scope."""
    reads = _reads.get()
    if reads is not None:
        reads.append(_current.get())
    return _current.get()


@contextlib.contextmanager
def noted_reads():
    """Gives a list, to which what `current_percentage` returns inside is appended."""
    reads: list[int] = []
    token = _reads.set(reads)
    try:
        yield reads
    finally:
        _reads.reset(token)


@contextlib.contextmanager
def percentage_scope(percentage):
    """Runs the IDP layers called inside at `percentage`.

    The scope is read when a layer's `call` runs, so it must be opened inside whatever is compiled:
    around an eager call of a model, or inside a `call` or `train_step`. It is not seen by a
    function that was already traced: `with percentage_scope(20): model.predict(x)` may return what
    an earlier call traced. For that use `TESLA.predict(x, percentage=20)` or `TESLA.at(20)`.

    Args:
        percentage: Int, 1..100.

    Raises:
        ValueError: If `percentage` is not an integer from 1 to 100.

    Example:

    >>> with percentage_scope(30):
    ...     current_percentage()
    30
    """
    token = _current.set(check_percentage(percentage))
    try:
        yield
    finally:
        _current.reset(token)
