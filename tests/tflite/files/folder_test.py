"""Writing a folder whole or not at all: kills at every step, and several processes at a time."""

import json
import pathlib
import signal
import subprocess
import sys

import pytest

from keras_tesla.tflite.files import folder

# The module needs the standard library only, so the processes do without importing Keras.
PRELUDE = f"""
import importlib.util, json, os, pathlib, random, signal, sys
spec = importlib.util.spec_from_file_location("folder", {folder.__file__!r})
folder = importlib.util.module_from_spec(spec)
spec.loader.exec_module(folder)

def write(out, text, count, overwrite=True):
    with folder.whole(out, overwrite) as temporary:
        names = [f"p{{i}}.tflite" for i in range(count)]
        for name in names:
            (temporary / name).write_text(text)
        values = {{"text": text, "files": [{{"file": name}} for name in names]}}
        (temporary / folder.MANIFEST).write_text(json.dumps(values))
"""
KILL_AT = """
at = int(sys.argv[2])
def counted(what):
    def call(*arguments, **kwargs):
        global at
        at -= 1
        if at < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return what(*arguments, **kwargs)
    return call
for name in ("rename", "replace", "unlink", "chmod", "mkdir", "rmdir"):
    setattr(os, name, counted(getattr(os, name)))
folder._exchange = counted(folder._exchange)
"""


def start(code, *arguments):
    command = [sys.executable, "-c", PRELUDE + code, *map(str, arguments)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def write(out, text, count, overwrite=True):
    names = [f"p{i}.tflite" for i in range(count)]
    with folder.whole(out, overwrite) as temporary:
        for name in names:
            (temporary / name).write_text(text)
        values = {"text": text, "files": [{"file": name} for name in names]}
        (temporary / folder.MANIFEST).write_text(json.dumps(values))


def content(out):
    """{name: text}, or None if there is no folder."""
    return {p.name: p.read_text() for p in out.iterdir()} if out.exists() else None


def whole(out):
    """The text of the export in a folder; it must be in every file that the manifest names."""
    values = json.loads((out / folder.MANIFEST).read_text())
    assert {(out / file["file"]).read_text() for file in values["files"]} == {values["text"]}
    return values["text"]


@pytest.mark.parametrize("before", ["nothing", "an empty folder", "an export"])
def test_a_kill_at_any_step_leaves_the_old_folder_or_the_new_one(before, tmp_path):
    ends = []
    for at in range(30):
        out = tmp_path / str(at) / "out"
        if before == "an empty folder":
            out.mkdir(parents=True)
        elif before == "an export":
            write(out, "old", 3)
        old = content(out)
        process = start(KILL_AT + "write(sys.argv[1], 'new', 2)", out, at)
        process.communicate()
        left = content(out)
        if left and folder.MANIFEST in left:
            ends.append(whole(out))
            assert left == old or len(left) == 3  # a file of the old export is not left over
        else:
            assert before != "an export"
            ends.append("nothing")
        write(out, "next", 2)  # what the killed process left does no harm
        assert whole(out) == "next"
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL
    assert process.returncode == 0  # the last one was not killed any more
    assert ends[0] == ("old" if before == "an export" else "nothing")
    assert ends[-1] == "new"


def test_other_things_in_the_folder_stay_and_a_kill_leaves_no_wrong_manifest(tmp_path):
    for at in range(30):
        out = tmp_path / str(at) / "out"
        write(out, "old", 3)
        (out / "notes.txt").write_text("mine")
        process = start(KILL_AT + "write(sys.argv[1], 'new', 2)", out, at)
        process.communicate()
        if (out / folder.MANIFEST).exists():
            assert whole(out) in ("old", "new")
        assert (out / "notes.txt").read_text() == "mine"
        if process.returncode == 0:
            break
    assert process.returncode == 0
    assert whole(out) == "new"


@pytest.mark.parametrize("exchange", [True, False])
def test_of_two_processes_at_a_time_each_writes_the_whole_folder(exchange, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    if not exchange:
        (out / "notes.txt").write_text("mine")
    code = "for _ in range(200): write(sys.argv[1], sys.argv[2], 3)"
    processes = [start(code, out, text) for text in ("one", "two")]
    for process in processes:
        _, errors = process.communicate()
        assert process.returncode == 0, errors
    assert whole(out) in ("one", "two")
    assert set(content(out)) - {"notes.txt"} == {
        "manifest.json",
        "p0.tflite",
        "p1.tflite",
        "p2.tflite",
    }
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_readers_meanwhile_see_a_whole_folder(tmp_path):
    """With its handle a reader keeps the folder that it opened; a name leads to a whole one."""
    out = tmp_path / "out"
    write(out, "start", 1)
    code = "for i in range(300): write(sys.argv[1], str(i), 1)"
    seen = set()
    with start(code, out) as process:
        while process.poll() is None:
            seen.add(json.loads((out / folder.MANIFEST).read_text())["text"])
    assert process.returncode == 0
    assert len(seen) > 2


def test_without_overwriting_the_first_one_wins(tmp_path):
    """Both begin before there is an export: the slower one is refused when it ends."""
    out = tmp_path / "out"
    slower = folder.whole(out, overwrite=False)
    (slower.__enter__() / folder.MANIFEST).write_text("{}")
    write(out, "faster", 2, overwrite=False)
    with pytest.raises(FileExistsError, match="already holds an export"):
        slower.__exit__(None, None, None)
    assert whole(out) == "faster"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_a_link_stays_a_link(tmp_path):
    real, link = tmp_path / "real", tmp_path / "link"
    write(real, "old", 2)
    link.symlink_to(real)
    write(link, "new", 2)
    assert link.is_symlink()
    assert whole(real) == "new"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["link", "real"]


def test_the_mode_of_a_replaced_folder_stays(tmp_path):
    out = pathlib.Path(tmp_path / "out")
    write(out, "old", 1)
    assert out.stat().st_mode & 0o777 == 0o755
    out.chmod(0o750)
    write(out, "new", 2)
    assert out.stat().st_mode & 0o777 == 0o750


@pytest.mark.parametrize("error", [1, 13, 16, 18, 22, 38, 95])
def test_a_system_without_the_exchange_replaces_file_by_file(error, tmp_path, monkeypatch):
    import ctypes
    import types

    def failing(*arguments):
        ctypes.set_errno(error)
        return -1

    monkeypatch.setattr(ctypes, "CDLL", lambda *a, **k: types.SimpleNamespace(renameat2=failing))
    write(tmp_path / "out", "old", 3)
    write(tmp_path / "out", "new", 2)
    assert whole(tmp_path / "out") == "new"
