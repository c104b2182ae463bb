"""Writes the tables of figures in docs/ and the plots from committed JSON; no figure is typed.

    python docs/make_tables.py
    python docs/make_tables.py --mnist=out/mnist_table --cifar=out/vgg

A table stands between `<!-- table NAME -->` and `<!-- end NAME -->` of a page in docs/; NAME is a
function of `result_tables.py`, `cifar_tables.py` or `guide_tables.py`. With a folder of results,
those are first collected into the committed JSON.
"""

import json
import pathlib
import re

import cifar_tables  # the files next to this one
import guide_tables
import result_plots
import result_tables
from absl import app, flags

FLAGS = flags.FLAGS
flags.DEFINE_string("mnist", None, "Folder of examples/mnist_table.py.")
flags.DEFINE_string("cifar", None, "Folder with the folders of examples/cifar_vgg16.py.")
flags.DEFINE_string("converted", None, "Folder with that of examples/convert_pretrained.py.")
flags.DEFINE_string("quantized", None, "Folder of examples/quantization_aware.py.")

DOCS = result_tables.DOCS
TABLES = {**result_tables.TABLES, **cifar_tables.TABLES, **guide_tables.TABLES}


def filled(text):
    """Returns a page with its tables written again."""

    def lines(found):
        head, name, tail = found.groups()
        return "\n".join([head, "", *TABLES[name](), "", tail])

    return re.sub(r"(<!-- table (\w+) -->)\n.*?(<!-- end \2 -->)", lines, text, flags=re.S)


def collect(folder, pattern, path):
    """Writes the results of the runs in a folder into one file that is committed."""
    if folder:
        found = sorted(pathlib.Path(folder).glob(pattern))
        path.write_text(json.dumps([json.loads(x.read_text()) for x in found], indent=1) + "\n")


def main(_):
    collect(FLAGS.mnist, "*/*/results.json", result_tables.MNIST)
    collect(FLAGS.cifar, "*/results.json", cifar_tables.CIFAR)
    collect(FLAGS.converted, "results.json", result_tables.CONVERTED)
    collect(FLAGS.quantized, "results.json", result_tables.QUANTIZED)
    for path in DOCS.glob("*.md"):
        path.write_text(filled(path.read_text()))
    for name, draw in result_plots.PLOTS.items():
        draw(DOCS / "images" / f"{name}.svg")


if __name__ == "__main__":
    app.run(main)
