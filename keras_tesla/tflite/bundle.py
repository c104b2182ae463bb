"""What an export wrote."""

import dataclasses
import json
import pathlib

from keras_tesla.tflite.folder import MANIFEST


@dataclasses.dataclass(frozen=True)
class Entry:
    """One percentage of an export.

    Args:
        percentage: Int, 1..100.
        file: Name of the file in the export's folder.
        sha256: Hex digest of the file.
        bytes: Size of the file.
        multiply_adds: Of one example; see `keras_tesla.analysis.cost.multiply_adds`.
        max_abs_difference: Largest difference between the file's outputs and Keras'.
    """

    percentage: int
    file: str
    sha256: str
    bytes: int
    multiply_adds: int
    max_abs_difference: float


@dataclasses.dataclass(frozen=True)
class Bundle:
    """An export on disk.

    Args:
        directory: Its folder.
        mode: `"per_percentage"`.
        entries: One for each percentage, from the highest to the lowest.
        inputs: {name: {"shape": [..], "dtype": ..}} of the inputs.
        outputs: Likewise of the outputs.
        versions: {package: version} of what wrote it.
    """

    directory: pathlib.Path
    mode: str
    entries: tuple[Entry, ...]
    inputs: dict
    outputs: dict
    versions: dict

    def __getitem__(self, percentage: int) -> Entry:
        for entry in self.entries:
            if entry.percentage == percentage:
                return entry
        raise KeyError(
            f"{percentage} % is not in this export; it holds {[e.percentage for e in self.entries]}"
        )

    def path(self, percentage: int) -> pathlib.Path:
        """Returns the path of the file that holds a percentage.

        Raises:
            KeyError: If the export does not hold it.
        """
        return self.directory / self[percentage].file

    def manifest(self) -> str:
        """Returns the text of the manifest."""
        values = dataclasses.asdict(self)
        del values["directory"]
        return json.dumps(values, indent=2) + "\n"


def read(directory) -> Bundle:
    """Reads the manifest of an export.

    Raises:
        FileNotFoundError: If there is none in the folder.
        ValueError: If it is not a manifest.
    """
    directory = pathlib.Path(directory)
    text = (directory / MANIFEST).read_text()
    try:
        values = json.loads(text)
        entries = tuple(Entry(**entry) for entry in values.pop("entries"))
        return Bundle(directory=directory, entries=entries, **values)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(
            f"{str(directory / MANIFEST)!r} is not a manifest of an export: {error}"
        ) from error
