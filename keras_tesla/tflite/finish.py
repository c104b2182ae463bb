"""Verifying the drafts of an export in LiteRT, measuring them, and finishing them.

Every percentage of every file is run in the Interpreter, with and without XNNPACK, and in
CompiledModel. A percentage of a file of several is also run as a standalone file, and that is what
is measured, because `keras_tesla.tflite.load` opens it.
"""

import dataclasses

import numpy as np

from keras_tesla.tflite import runtime, standalone, verify
from keras_tesla.tflite.converted import Converted
from keras_tesla.tflite.files.header import Header, Measures
from keras_tesla.tflite.files.writing import Draft
from keras_tesla.tflite.graphs import structure
from keras_tesla.tflite.verify import Interpreted


@dataclasses.dataclass(frozen=True, eq=False)
class DraftFile:
    """A file of an export, not verified yet.

    Args:
        name: Of the file in the folder.
        draft: Its bytes, not finished.
        converted: Its percentages, from the highest to the lowest.
        percentage_input: Bool, whether it takes the percentage as an input.
    """

    name: str
    draft: Draft
    converted: list[Converted]
    percentage_input: bool = False

    def expectations(self) -> list[verify.Expectation]:
        """Returns what it must compute: first each percentage by its signature."""
        header = self.draft.header
        by_signature = [
            converted.expectation_of(entry.signature)
            for converted, entry in zip(self.converted, header.percentages, strict=True)
        ]
        return by_signature + list(_by_input(self.converted) if self.percentage_input else ())


@dataclasses.dataclass(frozen=True, eq=False)
class VerifiedFile:
    """A file of an export, verified.

    Args:
        name: Of the file in the folder.
        content: Its bytes.
        header: Its header.
    """

    name: str
    content: bytes
    header: Header


def verify_and_measure(files: list[DraftFile], validation) -> list[VerifiedFile]:
    """Returns the files, compared with Keras, with measurements in their headers.

    Args:
        files: The files.
        validation: ({input name: array}, class of each example) or None.

    Raises:
        VerificationError: If the outputs of a file differ from those of Keras.
        StructureError: If a flatbuffer is malformed.
    """
    runs = [_run(file, validation) for file in files]
    # Starting a process takes longer than running a file, so CompiledModel gets all at once.
    whole = [run.whole for run in runs]
    differences = verify.compile_all(whole + [part for run in runs for part in run.parts])
    verified = []
    for file, run, worst in zip(files, runs, differences[: len(files)], strict=True):
        header = file.draft.header
        percentages = tuple(
            dataclasses.replace(
                entry,
                measures=dataclasses.replace(made, max_abs_difference=float(f"{difference:.3g}")),
            )
            for entry, made, difference in zip(
                header.percentages, run.measures, worst[: len(run.measures)], strict=True
            )
        )
        header = dataclasses.replace(header, percentages=percentages)
        verified.append(VerifiedFile(file.name, file.draft.finish(header), header))
    return verified


@dataclasses.dataclass(frozen=True, eq=False)
class _Run:
    """A file and its percentages as standalone files, after the Interpreter ran them."""

    whole: Interpreted
    parts: list[Interpreted]
    measures: list[Measures]


def _run(file: DraftFile, validation) -> _Run:
    content, header = file.draft.content, file.draft.header
    structure.check(content)
    whole, made = verify.interpret(content, file.expectations())
    if header.storage is None:
        return _Run(whole, [], [_measures(whole, made, validation)])
    del made  # it holds the weights of all percentages
    values = header.values()
    parts = [_run_part(content, values, converted, validation) for converted in file.converted]
    return _Run(whole, [part for part, _ in parts], [measures for _, measures in parts])


def _run_part(content, values, converted, validation) -> tuple[Interpreted, Measures]:
    extracted = standalone.extract(content, values, converted.percentage)
    part, made = verify.interpret(extracted, [converted.expectation_of(None)])
    return part, _measures(part, made, validation)


def _measures(run: Interpreted, made, validation) -> Measures:
    """Returns the measurements of a percentage, except its difference from Keras."""
    accuracy = None
    if validation is not None:
        inputs, labels = validation
        (scores,) = runtime.run(made, inputs).values()
        accuracy = round(float(np.mean(scores.argmax(-1) == labels)), 6)
    latency = float(f"{runtime.latency(made, run.expectations[0].inputs):.4g}")
    return Measures(bytes=len(run.content), accuracy=accuracy, latency=latency)


def _by_input(converted: list[Converted]):
    """Yields what to expect of each percentage as an input, and of values between and beyond."""
    above = converted[0]
    yield above.expectation_at(2**31 - 1)
    for each in converted:
        yield each.expectation_at(each.percentage)
        if each is not above and above.percentage > each.percentage + 1:
            yield above.expectation_at(each.percentage + 1)
        above = each
    yield above.expectation_at(-(2**31))
