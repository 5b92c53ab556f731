import pytest

pytest.importorskip("hypothesis")


from fuzz import FUZZED, NEEDS_TORCH, check
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st


@pytest.mark.parametrize("entry", FUZZED)
def test_inputs_are_right_or_clearly_refused(entry):
    if entry in NEEDS_TORCH:
        pytest.importorskip("torch")

    @settings(
        max_examples=25,
        deadline=None,
        database=None,
        derandomize=True,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data())
    def one(data):
        check(entry, lambda n: data.draw(st.integers(0, n - 1)))

    one()
