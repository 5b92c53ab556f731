import pytest

pytest.importorskip("hypothesis")

from fuzz import FUZZED, NEEDS_TORCH, run


@pytest.mark.parametrize("entry", FUZZED)
def test_inputs_are_right_or_clearly_refused(entry):
    if entry in NEEDS_TORCH:
        pytest.importorskip("torch")
    run(entry, num_inputs=25)
