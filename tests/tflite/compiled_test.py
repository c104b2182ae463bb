"""CompiledModel in a process of its own: several files at once; a crash names its file."""

import numpy as np
import pytest

from keras_tesla.tflite import compiled, verify
from tests.tflite.measure import handmade

X = np.ones((1, 4), "float32")


def calls(*percentages):
    return [(f"p{p}", [{"x": X}, {"x": 2 * X}]) for p in percentages]


def test_several_files_give_what_each_gives_by_itself():
    files = [
        (handmade.products((100, 50)), calls(100, 50)),
        (handmade.products((50,), units=10), calls(50)),
    ]
    together = compiled.run(files)
    assert together[0][1][0]["y"].shape == (1, 1250)
    assert together[1][0][1]["y"].tolist() == [[8.0] * 125]
    for file, results in zip(files, together, strict=True):
        (separate,) = compiled.run([file])
        for one, other in zip(separate, results, strict=True):
            for first, second in zip(one, other, strict=True):
                np.testing.assert_array_equal(first["y"], second["y"])


@pytest.mark.parametrize("bad", [b"not a model", handmade.crashing()], ids=["refused", "crash"])
def test_the_file_that_ends_the_process_is_named(bad):
    good = handmade.products((50,), units=10)
    with pytest.raises(compiled.CompiledModelError, match="CompiledModel ended with") as error:
        compiled.run([(good, calls(50)), (bad, [("p100", [{"x": X}])]), (good, calls(50))])
    assert error.value.file == 1


def test_verification_says_which_percentages_the_file_holds():
    def interpreted(content, what):
        expectation = verify.Expectation(what, "p50", {"x": X}, {}, 1e-5)
        return verify.Interpreted(content, [expectation], [0.0], calls(50), [{}])

    files = [interpreted(b"not a model", "50 %"), interpreted(handmade.products((50,)), "other")]
    with pytest.raises(verify.VerificationError, match="50 %: LiteRT's CompiledModel ended"):
        verify.compile_all(files)
