"""What a command lets through of stderr."""

import contextlib
import os

import pytest

from keras_tesla_cli import logs

pytestmark = pytest.mark.backend_free

NOISE = (
    "WARNING: All log messages before absl::InitializeLog() is called are written to STDERR\n"
    "I0000 00:00:1796068711.276933   14241 port.cc:153] oneDNN custom operations are on.\n"
    "INFO: Created TensorFlow Lite XNNPACK delegate for CPU.\n"
)
SAID = "E0000 00:00:1 2 a.cc:3] failed\nUserWarning: mind this\nInfo of a user\n"


def write():
    """Writes as the runtimes do, past Python."""
    for line in (NOISE + SAID + NOISE).splitlines(keepends=True):
        os.write(2, line.encode())


def test_lines_on_the_setting_up_are_left_out_and_all_others_kept(monkeypatch, capfd):
    monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL", raising=False)
    with logs.without_noise():
        assert os.environ["TF_CPP_MIN_LOG_LEVEL"] == "3"
        write()
    assert capfd.readouterr().err == SAID
    assert "TF_CPP_MIN_LOG_LEVEL" not in os.environ


def test_what_was_said_before_an_error_is_kept(monkeypatch, capfd):
    monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL", raising=False)
    with contextlib.suppress(ZeroDivisionError), logs.without_noise():
        write()
        raise ZeroDivisionError
    assert capfd.readouterr().err == SAID


def test_who_sets_the_variable_sees_everything_at_once(monkeypatch, capfd):
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "0")
    with logs.without_noise():
        write()
        assert capfd.readouterr().err == NOISE + SAID + NOISE
