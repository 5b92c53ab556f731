import numpy as np
import pytest
from conftest import DATASET, make, make_vec

from ram_envs.classification import GlimpseClassification
from ram_envs.retina import glimpses


def act(location, label):
    return {"location": np.array(location, np.float32), "class": label}


def test_an_episode_by_hand():
    env = make(num_glimpses=3, initial_location=(0.25, -0.5), split="test")
    obs, info = env.reset(seed=0, options={"index": 4})
    task = env.unwrapped.task
    image, label = task.images.images[4], int(task.images.labels[4])
    assert info == {"label": label, "index": 4, "is_success": False}

    def expected(location):
        return glimpses(image[None], np.array([location], np.float32), glimpse_size=8, num_scales=1)[0]

    np.testing.assert_array_equal(obs["location"], np.float32([0.25, -0.5]))
    np.testing.assert_array_equal(obs["glimpse"], expected((0.25, -0.5)))
    # A right class before the last step earns nothing.
    obs, reward, terminated, truncated, info = env.step(act((0.5, 0.5), label))
    np.testing.assert_array_equal(obs["glimpse"], expected((0.5, 0.5)))
    assert (reward, terminated, truncated) == (0.0, False, False)
    assert info["is_success"] is False
    obs, reward, *_ = env.step(act((3, -3), label))  # Out of range: clipped, in what is seen and what is said.
    np.testing.assert_array_equal(obs["location"], np.float32([1, -1]))
    np.testing.assert_array_equal(obs["glimpse"], expected((1, -1)))
    assert reward == 0.0
    _, reward, terminated, truncated, info = env.step(act((0, 0), label))
    assert (reward, terminated, truncated) == (1.0, True, False)
    assert info["is_success"] is True


def test_a_wrong_class_earns_nothing():
    env = make(num_glimpses=1)
    _, info = env.reset(seed=0)
    _, reward, terminated, _, info = env.step(act((0, 0), (info["label"] + 1) % 10))
    assert (reward, terminated, info["is_success"]) == (0.0, True, False)


def test_the_image_is_not_all_zero():
    obs, _ = make(initial_location="center").reset(seed=0)
    assert obs["glimpse"].max() > 0.5
    assert obs["location"].tolist() == [0, 0]


def test_random_first_locations_cover_the_image():
    envs = make_vec(500)
    obs, _ = envs.reset(seed=0)
    assert obs["location"].min() < -0.95
    assert obs["location"].max() > 0.95
    assert np.abs(obs["location"].mean(axis=0)).max() < 0.1


def test_one_epoch_in_order_shows_each_image_once():
    envs = make_vec(150, split="validation", image_order="sequential", num_glimpses=1, autoreset_mode="SameStep")
    size = len(envs.task.images.labels)
    quotas = (size + np.arange(150)) // 150
    _, info = envs.reset(seed=0)
    shown, labels, begun = [], [], np.ones(150, int)
    while True:
        counts = begun <= quotas
        if not counts.any():
            break
        shown += info["index"][counts].tolist()
        labels += info["label"][counts].tolist()
        *_, info = envs.step(envs.action_space.sample())
        begun += 1
    assert sorted(shown) == list(range(size))
    np.testing.assert_array_equal(envs.task.images.labels[shown], labels)
    assert shown[:150] == list(range(150))
    assert envs.reset()[1]["index"].tolist() == list(range(150))  # A new epoch.


def test_resets_by_mask_continue_the_epoch():
    envs = make_vec(4, split="test", image_order="sequential", num_glimpses=1, autoreset_mode="Disabled")
    _, info = envs.reset()
    assert info["index"].tolist() == [0, 1, 2, 3]
    _, info = envs.reset(options={"reset_mask": np.ones(4, bool)})
    assert info["index"].tolist() == [4, 5, 6, 7]
    _, info = envs.reset()
    assert info["index"].tolist() == [0, 1, 2, 3]


def test_a_single_environment_goes_through_a_split_in_order():
    env = make(split="test", image_order="sequential")
    assert [env.reset()[1]["index"] for _ in range(5)] == [0, 1, 2, 3, 4]
    assert env.reset(seed=1)[1]["index"] == 0


def test_shuffled_epochs_show_each_image_once():
    envs = make_vec(100, split="test", image_order="shuffled", num_glimpses=1, autoreset_mode="SameStep")
    size = len(envs.task.images.labels)
    _, info = envs.reset(seed=3)
    shown = []
    for _ in range(2 * size // 100):
        shown += info["index"].tolist()
        *_, info = envs.step(envs.action_space.sample())
    assert sorted(shown[:size]) == sorted(shown[size:]) == list(range(size))
    assert shown[:size] != shown[size:]


def test_random_order_visits_all_classes():
    envs = make_vec(2000)
    _, info = envs.reset(seed=0)
    assert np.bincount(info["label"], minlength=10).min() > 100


def test_evaluation_does_not_depend_on_seed_or_number_of_environments():
    first = make_vec(20, split="test", image_order="sequential").reset(seed=0)[0]
    second = make_vec(5, split="test", image_order="sequential").reset(seed=9)[0]
    np.testing.assert_array_equal(first["location"][:5], second["location"])
    np.testing.assert_array_equal(first["glimpse"][:5], second["glimpse"])


def test_shuffled_epochs_can_be_resumed():
    settings = {"image_order": "shuffled", "autoreset_mode": "SameStep", "num_glimpses": 1}
    envs, other = make_vec(6, **settings), make_vec(6, **settings)
    envs.reset(seed=1), other.reset(seed=2)
    other.unwrapped.set_state(envs.unwrapped.get_state())
    for _ in range(5):
        action = envs.action_space.sample()
        np.testing.assert_array_equal(envs.step(action)[4]["index"], other.step(action)[4]["index"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"warp": -1}, "warp must be from 0 to 28 pixels, the longer side of the images, got -1"),
        ({"warp": 28.5}, "warp must be from 0 to 28 pixels"),
        ({"warp": float("nan")}, "warp must be from 0 to 28 pixels"),
        ({"affine": 1}, r"affine must be in \[0, 1\), got 1"),
        ({"affine": -0.1}, r"affine must be in \[0, 1\), got -0.1"),
        ({"num_glimpses": 0}, "num_glimpses must be"),
        ({"glimpse_size": 0}, "glimpse_size must be"),
        ({"num_scales": 0}, "num_scales must be"),
        ({"num_scales": 9}, "widest patch of 2048 pixels"),
        ({"initial_location": "centre"}, "initial_location must be"),
        ({"initial_location": (0, 2)}, "initial_location must be"),
        ({"initial_location": (0, float("nan"))}, "initial_location must be"),
        ({"initial_location": 3}, "initial_location must be"),
        ({"image_order": "sorted"}, "image_order must be"),
        ({"split": "valid"}, "split must be"),
        ({"action_format": "tuple"}, "action_format must be"),
        ({"dataset": "minst"}, "dataset must be"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        GlimpseClassification(**{"dataset": DATASET, **options})


def test_translated_and_cluttered_scenes_are_fixed_by_index_and_split():
    def scenes(env_id, split, num_envs, seed):
        envs = make_vec(num_envs, env_id, split=split, image_order="sequential")
        envs.reset(seed=seed)
        task = envs.unwrapped.task
        return task.gaze.retina.inner(task.scenes)[:5].copy(), task.images.images[:5]

    for env_id in ("GlimpseTranslatedMNIST-v0", "GlimpseClutteredMNIST-v0", "GlimpseClutteredMNIST100-v0"):
        first, images = scenes(env_id, "test", 20, 0)
        np.testing.assert_array_equal(first, scenes(env_id, "test", 5, 9)[0])
        side = 100 if "100" in env_id else 60
        assert first.shape == (5, side, side)
        for scene, image in zip(first, images, strict=True):
            assert scene.sum(dtype=np.int64) >= image.sum(dtype=np.int64)
    places = [scenes("GlimpseTranslatedMNIST-v0", split, 5, 0)[0].any(axis=1).argmax(axis=1) for split in ("validation", "test")]
    assert (places[0] != places[1]).any()  # Image 3 of validation lies elsewhere than image 3 of test.
    one, other = (make_vec(5, "GlimpseClutteredMNIST-v0") for _ in range(2))
    one.reset(seed=0), other.reset(seed=1)
    assert (one.unwrapped.task.scenes != other.unwrapped.task.scenes).any()


@pytest.mark.parametrize("bending", [{"warp": 3.0}, {"affine": 0.3}, {"warp": 3.0, "affine": 0.3}])
def test_training_images_alone_are_bent(bending):
    def scenes(**options):
        task = GlimpseClassification(8, dataset=DATASET, image_order="sequential", **options)
        task.seed(np.arange(8, dtype=np.uint64), np.ones(8, bool))
        epochs = []
        for _ in range(2):
            task.restart()
            task.begin(np.ones(8, bool), {})
            epochs.append(task.gaze.retina.inner(task.scenes).copy())
        return epochs

    first, second = scenes(**bending)
    assert (first != second).any(axis=(1, 2)).all()  # Each time anew.
    np.testing.assert_array_equal(first, scenes(**bending)[0])  # By the seed.
    for split in ("validation", "test"):
        for bent, plain in zip(scenes(**bending, split=split), scenes(split=split), strict=True):
            np.testing.assert_array_equal(bent, plain)


def test_clutter_shifts_no_other_draws():
    plain, cluttered = make_vec(8, canvas_size=40), make_vec(8, canvas_size=40, num_clutter=3)
    for _ in range(3):
        one, other = plain.reset(seed=4), cluttered.reset(seed=4)
        np.testing.assert_array_equal(one[0]["location"], other[0]["location"])
        np.testing.assert_array_equal(one[1]["index"], other[1]["index"])


def test_stopping_by_hand():
    env = make(num_glimpses=5, stop_action=True, glimpse_cost=0.125, initial_location="center")
    _, info = env.reset(seed=0)
    label = info["label"]
    look = {**act((0.5, 0), label), "stop": 0}
    _, reward, terminated, *_ = env.step(look)
    assert (reward, terminated) == (-0.125, False)  # A look has its price.
    obs, reward, terminated, _, info = env.step({**act((-1, -1), label), "stop": 1})
    assert (reward, terminated, info["is_success"]) == (1.0, True, True)
    np.testing.assert_array_equal(obs["location"], np.float32([0.5, 0]))  # Nothing more was looked at.
    env.reset(seed=0)
    rewards = [env.step(look)[1] for _ in range(5)]
    assert rewards == [-0.125] * 4 + [1.0]  # The last step ends the episode anyway.
    env.reset(seed=0)
    _, reward, terminated, _, info = env.step({**act((0, 0), (label + 1) % 10), "stop": 1})
    assert (reward, terminated, info["is_success"]) == (0.0, True, False)


def test_zooming_by_hand():
    env = make(num_glimpses=4, glimpse_size=6, zoom_action=True, num_zooms=2, split="test")
    obs, _ = env.reset(seed=0, options={"index": 2})
    image = env.unwrapped.task.images.images[2:3]
    assert obs["zoom"].tolist() == [1, 0]
    obs, *_ = env.step({**act((0.25, 0.1), 0), "zoom": 1})
    assert obs["zoom"].tolist() == [0, 1]
    wide = glimpses(image, np.array([[0.25, 0.1]], np.float32), glimpse_size=6, num_scales=2)[0, 1:]
    np.testing.assert_array_equal(obs["glimpse"], wide)
