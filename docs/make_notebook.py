"""Runs examples/tour.ipynb and writes its outputs into it, for those who only read it.

python docs/make_notebook.py
"""

import os
import pathlib

import nbclient
import nbformat
from absl import app

NOTEBOOK = pathlib.Path(__file__).parents[1] / "examples" / "tour.ipynb"


def read():
    """Returns the notebook."""
    return nbformat.read(NOTEBOOK, as_version=4)


def run(notebook):
    """Runs a notebook; it then holds what its cells print and draw, without logs and times."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(NOTEBOOK.parents[1]),
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
    }
    client = nbclient.NotebookClient(notebook, timeout=300, record_timing=False)
    client.execute(env=environment)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [o for o in cell.outputs if o.get("name") != "stderr"]


def main(_):
    notebook = read()
    run(notebook)
    nbformat.write(notebook, NOTEBOOK)


if __name__ == "__main__":
    app.run(main)
