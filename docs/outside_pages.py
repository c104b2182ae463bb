"""A hook of mkdocs: the pages that lie outside docs/ become pages of the site, links and all."""

import pathlib

from mkdocs.structure.files import File

ROOT = pathlib.Path(__file__).parents[1]
# {file of the repository: page of the site}
PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
}


def page(name):
    """Returns the text of a file at the root, with links as they are from within docs/."""
    text = (ROOT / name).read_text().replace("](docs/", "](")
    for other, target in PAGES.items():
        text = text.replace(f"]({other})", f"]({target})")
    return text


def on_files(files, config):
    """Adds the pages to those of docs/."""
    for name, target in PAGES.items():
        files.append(File.generated(config, target, content=page(name)))
    return files
