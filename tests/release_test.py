"""What is released: the wheel and the source archive, the version, the citation."""

import os
import pathlib
import re
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile

import pytest
import yaml

import keras_tesla

pytestmark = pytest.mark.slow

ROOT = pathlib.Path(__file__).parents[1]


def run(*command, cwd, code=0, **variables):
    """Runs a command as outside of the clone: nothing leads back into it."""
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONSAFEPATH")}
    done = subprocess.run(
        [str(c) for c in command],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**environment, **variables},
    )
    assert done.returncode == code, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The wheel, made from the source archive, and that archive."""
    out = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, ROOT, cwd=out)
    (wheel,), (archive,) = out.glob("*.whl"), out.glob("*.tar.gz")
    return wheel, archive


@pytest.fixture(scope="module")
def installed(built, tmp_path_factory):
    """The folder of an environment that has the wheel, and not this clone."""
    home = tmp_path_factory.mktemp("installed") / "venv"
    venv.create(home, symlinks=True)
    python = home / "bin" / "python"
    command = ("install", "--quiet", "--no-index", "--no-deps", built[0])
    run(sys.executable, "-m", "pip", "--python", python, *command, cwd=home)
    # Everything else comes from here. A .pth file in a folder that another one adds is not read, so
    # the clone, which is installed there in that way, stays out.
    (site,) = home.glob("lib/python*/site-packages")
    (site / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return home


def test_the_wheel_holds_the_library_and_nothing_else(built):
    wheel, _ = built
    with zipfile.ZipFile(wheel) as file:
        names = file.namelist()
        (entry_points,) = (n for n in names if n.endswith("entry_points.txt"))
        assert "keras-tesla = keras_tesla_cli.main:main" in file.read(entry_points).decode()
        (metadata,) = (n for n in names if n.endswith("/METADATA"))
        said = file.read(metadata).decode()
    packages = (ROOT / "keras_tesla", ROOT / "keras_tesla_cli")
    sources = {str(p.relative_to(ROOT)) for folder in packages for p in folder.rglob("*.py")}
    info = f"keras_tesla-{keras_tesla.__version__}.dist-info/"
    assert {n for n in names if not n.startswith(info)} == sources | {"keras_tesla/py.typed"}
    assert any(n.endswith("licenses/LICENSE") for n in names)
    assert f"\nVersion: {keras_tesla.__version__}\n" in said
    assert "\nLicense-Expression: Apache-2.0\n" in said


def test_the_source_archive_holds_what_the_wheel_is_made_of(built):
    _, archive = built
    with tarfile.open(archive) as file:
        names = {name.partition("/")[2] for name in file.getnames()}
    assert {"pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff"} <= names
    assert {"keras_tesla/py.typed", "keras_tesla/version.py"} <= names
    assert not any(n.startswith(("tests", "examples", "export", "out", ".venv")) for n in names)


@pytest.mark.nightly
@pytest.mark.tensorflow
def test_the_demo_runs_from_the_wheel_and_the_command_exports_what_it_trained(installed, tmp_path):
    """The example of `make demo`, copied away from the clone, with fewer epochs."""
    python, command = installed / "bin" / "python", installed / "bin" / "keras-tesla"
    find = "import importlib.util; print(importlib.util.find_spec('keras_tesla').origin)"
    assert run(python, "-c", find, cwd=tmp_path).startswith(str(installed))
    example = tmp_path / "mnist_mlp.py"
    example.write_bytes((ROOT / "examples" / "mnist_mlp.py").read_bytes())
    flags = ("--dataset=digits", "--percentages=100,50", "--epochs=4", "--steps_per_epoch=50")
    run(python, example, *flags, "--noexport", "--output_dir=out", cwd=tmp_path)
    printed = run(command, "export", "--model=out/tesla.keras", "--output_dir=tflite", cwd=tmp_path)
    assert "p50.tflite" in printed
    assert (tmp_path / "tflite" / "manifest.json").exists()


def test_the_version_has_one_source():
    written = [
        str(path.relative_to(ROOT))
        for path in (*ROOT.glob("*.toml"), *(ROOT / "keras_tesla").rglob("*.py"))
        if keras_tesla.__version__ in path.read_text()
    ]
    assert written == ["keras_tesla/version.py"]
    assert re.fullmatch(r"\d+\.\d+\.\d+(\.dev\d+|rc\d+)?", keras_tesla.__version__)


def test_the_citation_is_that_of_this_version_and_names_the_papers():
    said = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= set(said)  # what the format requires
    assert said["title"] == "keras_tesla"
    assert said["version"] == keras_tesla.__version__
    assert said["license"] == "Apache-2.0"
    readme = " ".join((ROOT / "README.md").read_text().split())
    assert len(said["references"]) == 2
    for paper in said["references"]:
        assert {"type", "title", "authors", "year", "url"} == set(paper)
        assert f"*{paper['title']}*, {paper['year']}, <{paper['url']}>" in readme
        for author in paper["authors"]:
            assert author["family-names"] in readme
