"""The code of the first page a user reads."""

import pathlib
import re

import pytest

pytestmark = pytest.mark.tensorflow
DOCS = pathlib.Path(__file__).parents[1] / "docs"


def test_getting_started_runs_from_top_to_bottom(tmp_path, monkeypatch, capsys):
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / "getting_started.md").read_text(), re.S)
    assert len(blocks) == 3
    monkeypatch.chdir(tmp_path)
    names = {}
    for block in blocks:
        exec(block, names)
    assert names["tesla"].evaluate(names["x"], names["y"], return_dict=True)["p100_accuracy"] > 0.9
    assert (tmp_path / "digits_tflite" / "manifest.json").exists()
