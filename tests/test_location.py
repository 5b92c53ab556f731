import pytest

torch = pytest.importorskip("torch")

from ram_envs.agents.location import Saliency


def make_saliency(glimpse_shape=(2, 4, 4), scene_size=16.0, **kwargs):
    """One that scores nothing, until a test says what."""
    torch.manual_seed(0)
    saliency = Saliency(glimpse_shape, core_size=3, scene_size=scene_size, **kwargs)
    with torch.no_grad():
        saliency.query.bias.zero_()
    return saliency


def test_cells_lie_around_the_gaze():
    # Filters at the cells 0 and 2 of 4, whose middles are 1.5 cells to the left and 0.5 to the right of the retina's. A cell of
    # the first scale is a pixel, 1/8 of the way from the middle of a scene of 16 pixels to its edge; one of the second is two.
    offsets = make_saliency().offsets
    left, right = -1.5 / 8, 0.5 / 8
    first = [[left, left], [right, left], [left, right], [right, right]]
    torch.testing.assert_close(offsets, torch.tensor([*first, *[[2 * x, 2 * y] for x, y in first]]))


def test_scenes_need_not_be_square():
    wide = make_saliency(scene_size=[16, 32]).offsets
    torch.testing.assert_close(wide, make_saliency().offsets * torch.tensor([0.5, 1.0]))


def test_where_all_is_equal_the_look_goes_to_the_middle_of_the_cells():
    saliency = make_saliency()
    location = torch.tensor([[0.25, -0.5]])
    looked = saliency(torch.zeros(1, 3), torch.zeros(1, 2, 4, 4), location, 1.0)
    torch.testing.assert_close(looked, location + saliency.offsets.mean(0))


def test_the_look_goes_to_what_the_filters_find():
    saliency = make_saliency(num_filters=1)
    with torch.no_grad():
        saliency.filters.weight.zero_()
        saliency.filters.weight[0, 0, 3, 3] = 1.0  # What lies in the filter's middle.
        saliency.query.bias[0] = 100.0
    glimpse = torch.zeros(1, 2, 4, 4)
    glimpse[0, 1, 2, 0] = 1.0  # The wider scale, row 2, column 0.
    looked = saliency(torch.zeros(1, 3), glimpse, torch.tensor([[0.1, 0.2]]), 1.0)
    torch.testing.assert_close(looked, torch.tensor([[0.1 - 3 / 8, 0.2 + 1 / 8]]))


def test_the_state_says_what_counts():
    saliency = make_saliency(num_filters=1)
    with torch.no_grad():
        saliency.query.weight[1, 0] = 100.0  # The first unit of h_t wants what lies to the right.
    location = torch.zeros(2, 2)
    hidden = torch.tensor([[1.0, 0.0, 0.0], [-1.0, 0.0, 0.0]])
    looked = saliency(hidden, torch.zeros(2, 2, 4, 4), location, 1.0)
    torch.testing.assert_close(looked[:, 0], torch.tensor([1 / 8, -3 / 8]), rtol=0, atol=1e-3)
    still = saliency(hidden, torch.zeros(2, 2, 4, 4), location, 1e-9)
    torch.testing.assert_close(still[0], still[1], rtol=0, atol=1e-6)


def test_at_first_it_looks_for_the_middle_of_the_scene():
    saliency = Saliency((3, 12, 12), core_size=3, scene_size=60.0)
    corner = torch.tensor([[0.9, 0.9]])
    looked = saliency(torch.zeros(1, 3), torch.zeros(1, 3, 12, 12), corner, 1.0)
    assert (looked < 0.75).all()


@pytest.mark.parametrize("shape", [(1, 5, 5), (2, 3, 4, 4)], ids=["odd", "colours"])
def test_other_glimpses(shape):
    saliency = make_saliency(shape)
    looked = saliency(torch.rand(6, 5, 3), torch.rand(6, 5, *shape), torch.zeros(6, 5, 2), 1.0)
    assert looked.shape == (6, 5, 2)
    assert (looked.abs() < 1).all()


@pytest.mark.parametrize("scene_size", [0, -60, [60, 0], [60, 60, 60]])
def test_scene_size_is_checked(scene_size):
    with pytest.raises(ValueError, match="scene_size must be a side above 0"):
        make_saliency(scene_size=scene_size)
