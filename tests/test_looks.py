"""What looks come to, hand-computed: agents whose looks are known, on scenes whose objects are."""

import json
import re
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("pygame")

from conftest import DATASET
from matplotlib.image import imread
from stable_baselines3 import DQN, PPO

import ram_envs
from ram_envs.agents import RAM, make_vec_env
from ram_envs.agents.training import looks as module
from ram_envs.agents.training.config import RunConfig
from ram_envs.agents.training.evaluation import evaluate_on_test
from ram_envs.agents.training.looks import (
    Looks,
    describe,
    describe_episode,
    error_along_mean_path,
    gather_looks,
    measure,
    show_looks,
    watch_episode,
)
from ram_envs.agents.training.run import run
from train_agent import main

LABELS = np.array([0, 1, 2, 1])
WHITE = np.full((4, 2, 2), 255, np.uint8)
# Squares of 2x2 pixels on a canvas of 8x8, seen through 2x2 pixels, the first time in the middle.
SQUARES = {"dataset": (WHITE, LABELS), "split": "validation", "canvas_size": 8, "glimpse_size": 2, "num_glimpses": 3}
SQUARES |= {"initial_location": "center", "action_format": "box"}
ENV = "GlimpseClassification-v0"
DIGITS = {"dataset": DATASET, "num_glimpses": 3}


class Scripted:
    """In environment i it looks along path i, and says the label of image i when it has seen white, else 3."""

    def __init__(self, path):
        self.path = np.asarray(path, np.float32)  # (N, T, 2)

    def predict(self, obs, state, episode_start, deterministic):
        step, seen = (0, np.zeros(len(self.path), bool)) if state is None else state
        seen = seen | (obs["glimpse"].max(axis=(1, 2, 3)) > 0)
        said = np.where(seen, LABELS, 3)
        ahead = self.path[:, min(step + 1, self.path.shape[1] - 1)]
        return np.concatenate([ahead, 2 * np.eye(4)[said] - 1], axis=1).astype(np.float32), (step + 1, seen)


@pytest.fixture
def squares():
    """The options, and the columns and rows (4, 2) of the squares' top-left pixels, read off the scenes."""
    options = {**SQUARES, "dataset": ram_envs.ImageSet("squares", WHITE, LABELS, 4)}
    env = gym.make_vec(ENV, 4, image_order="sequential", **options)
    env.reset(seed=0)
    scenes = [env.unwrapped.frame(n).scene for n in range(4)]
    corners = np.array([np.argwhere(scene > 0).min(axis=0)[::-1] for scene in scenes])
    np.testing.assert_allclose(env.unwrapped.task.object_places(), (corners + 1) / 4 - 1)
    return options, corners


def test_looks_that_follow_the_object_and_what_they_are_worth(squares):
    options, corners = squares
    places = (corners + 1) / 4 - 1.0  # Of the middles.
    path = np.stack([0 * places, places, places / 2], axis=1)
    own, measured = measure(Scripted(path), ENV, options, "validation")
    np.testing.assert_allclose(own.locations, path, atol=1e-6)
    np.testing.assert_allclose(own.places, np.stack([places] * 3, axis=1))
    # A patch is 2 pixels wide: it shows white where its corner is less than 2 pixels from the square's.
    meets = lambda seen: (np.abs(seen - corners) < 2).all(axis=1)  # noqa: E731
    patch = lambda where: np.floor((where + 1) * 4 - 1 + 0.5)  # noqa: E731
    at_first = meets(np.full((4, 2), 3))
    assert measured["error_after_glimpse"] == [100 * (1 - at_first.mean()), 0, 0]
    assert measured["error"] == 0
    mean, other = path.mean(axis=0), np.roll(path, -1, axis=0)
    along = at_first | meets(patch(mean[1])) | meets(patch(mean[2]))
    anothers = at_first | meets(patch(other[:, 1])) | meets(patch(other[:, 2]))
    assert measured["error_along_mean_path"] == 100 * (1 - along.mean()) > 0
    assert error_along_mean_path(Scripted(path), ENV, options, "validation") == measured["error_along_mean_path"]
    assert measured["error_at_anothers_looks"] == 100 * (1 - anothers.mean()) > 0
    assert measured["slope"] == [0, 1, 0.5]
    offsets = np.linalg.norm(4 * places, axis=1)  # From the middle, in pixels.
    np.testing.assert_allclose(measured["distance"], [offsets.mean(), 0, offsets.mean() / 2], atol=1e-3)
    spread = np.sqrt(((4 * (places - places.mean(axis=0))) ** 2).sum(axis=1).mean())
    np.testing.assert_allclose(measured["spread"], [0, spread, spread / 2], atol=1e-3)
    np.testing.assert_allclose(measured["mean_path"], mean, atol=1e-3)


def test_looks_by_hand():
    """Two episodes on a scene of 4 x 2 pixels, one of which ends a glimpse early."""
    nan = np.nan
    locations = np.array([[[-0.5, 0], [0.5, 0]], [[0.5, -1], [nan, nan]]], np.float32)
    places = np.array([[[0, 0], [0.5, 0]], [[1, 0], [nan, nan]]])
    own = Looks(locations, places, np.array([[1, 2], [0, 0]]), np.array([2, 0]), np.array([True, True]), (2, 4))
    np.testing.assert_array_equal(own.in_pixels(locations[0]), [[1, 1], [3, 1]])
    np.testing.assert_array_equal(own.mean_path, [[0, -0.5], [0.5, 0]])
    first, second = own.heat_maps()
    np.testing.assert_array_equal(first, [[0, 0, 0, 0.5], [0, 0.5, 0, 0]])  # The border belongs to the cell behind it.
    np.testing.assert_array_equal(second, [[0, 0, 0, 0], [0, 0, 0, 1]])
    assert describe(own) == {
        "episodes": 2,
        "error": 0,
        "error_after_glimpse": [50, 0],
        "mean_path": [[0, -0.5], [0.5, 0]],
        "spread": [1.118, 0],  # 1 pixel across and half a one down.
        "slope": [1, None],  # The object lies at columns 2 and 4, the look at 1 and 3; rows: always 1, and 1 and 0.
        "distance": [1.207, 0],  # 1 pixel, and the diagonal of one.
    }


def test_heat_maps_have_at_most_30_cells_to_a_side():
    locations = np.zeros((1, 1, 2), np.float32)
    for shape, cells in (((60, 60), (30, 30)), ((28, 14), (28, 14)), ((3, 100, 50), (30, 15)), ((90, 1), (30, 1))):
        assert Looks(locations, None, *[None] * 3, shape).heat_maps().shape == (1, *cells)


@pytest.mark.parametrize("most", [None, 3])
def test_every_image_counts_once(most, monkeypatch):
    """Five images in three environments, or three of them."""
    monkeypatch.setattr(module, "EVAL_ENVS", 3)
    labels = np.arange(5)
    options = {**SQUARES, "dataset": ram_envs.ImageSet("five", np.full((5, 2, 2), 255, np.uint8), labels, 5)}
    model = RAM("RAMPolicy", make_vec_env(ENV, 2, **options), device="cpu", policy_kwargs={"hidden_size": 8, "core_size": 8})
    own = gather_looks(model, ENV, options, most=most)
    np.testing.assert_array_equal(own.labels, labels[:most])
    assert not np.isnan(own.locations).any()


def test_an_episode_that_stops(squares):
    options, corners = squares

    class Stops(Scripted):
        def predict(self, *args, **kwargs):
            actions, (step, seen) = super().predict(*args, **kwargs)
            stop = np.where(np.arange(4) == 2, 1, -1)[:, None] * np.array([[-1, 1]])  # Image 2 alone, at once.
            return np.concatenate([actions, stop], axis=1, dtype=np.float32), (step, seen)

    path = np.repeat(((corners + 1) / 4 - 1.0)[:, None], 3, axis=1)
    own = gather_looks(Stops(path), ENV, {**options, "stop_action": True})
    assert np.isnan(own.locations[..., 0]).tolist() == [[False] * 3, [False] * 3, [False, True, True], [False] * 3]
    assert (own.choices[2] == own.choices[2, 0]).all() and own.successes.tolist() == [True, True, own.choices[2, 0] == 2, True]


def test_a_path_that_ends_stays_at_its_last_place(squares):
    options, _ = squares
    path = np.array([[0, 0], [0.5, -0.25], [np.nan, np.nan]])
    looks = gather_looks(Scripted(np.zeros((4, 3, 2))), ENV, options, instead=path)
    assert looks.locations[0].tolist() == [[0, 0], [0.5, -0.25], [0.5, -0.25]]


def test_the_ball_is_what_there_is_to_be_found():
    class Follows:
        def predict(self, obs, state, episode_start, deterministic):
            actions = np.zeros((len(obs["location"]), 5), np.float32)
            actions[:, :2], actions[:, 3] = obs["location"] * 0.5 + 0.25, 1
            return actions, None

    own = gather_looks(Follows(), "GlimpseCatch-v0", {"size": 4, "glimpse_size": 4, "action_format": "box"}, most=50)
    np.testing.assert_allclose(own.places[:, :, 1], np.broadcast_to([-0.75, -0.25, 0.25], (50, 3)))
    assert set(np.unique(own.places[:, :, 0])) == {-0.75, -0.25, 0.25, 0.75}
    assert own.locations[0].tolist() == [[0, 0], [0.25, 0.25], [0.375, 0.375]]
    assert own.labels is None and own.mean_path.shape == (3, 2)
    assert describe(own)["slope"] == [0, 0, 0] and "error_after_glimpse" not in describe(own)


@pytest.mark.parametrize(
    ("env_id", "form"),
    [("GlimpseMNIST-v0", "multidiscrete"), ("GlimpseMNIST-v0", "box"), ("GlimpseMNISTDiscrete-v0", "discrete")],
)
def test_other_algorithms_and_formats_err_as_in_their_evaluation(env_id, form):
    options = {"dataset": "mnist-5k", "num_glimpses": 2, "action_format": form}
    env = make_vec_env(env_id, 2, frame_stack=2, **options)
    policy = "MultiInputPolicy" if form != "discrete" else "MlpPolicy"
    kwargs = {"buffer_size": 10} if form == "discrete" else {"n_steps": 4, "batch_size": 8}
    model = (DQN if form == "discrete" else PPO)(policy, env, seed=0, device="cpu", **kwargs)
    own = gather_looks(model, env_id, options, "test", frame_stack=2)
    assert round(own.error, 4) == evaluate_on_test(model, env_id, options, frame_stack=2)["test_error"]
    assert own.locations.shape == (500, 2, 2)
    if form != "box":  # The second look is one of 5 x 5.
        np.testing.assert_allclose(own.locations[:, 1] * 2.5 % 1, 0, atol=1e-5)
    assert own.places is None  # The digit fills the scene.


@pytest.mark.parametrize(("env_id", "options"), [("CartPole-v1", {}), ("Catch-v0", {}), (ENV, {**DIGITS, "num_glimpses": 1})])
def test_without_looks_of_its_own_there_is_nothing_to_lose(env_id, options):
    assert error_along_mean_path(None, env_id, options) is None


def test_what_has_no_looks_is_named():
    for env_id, options in (("Catch-v0", {"size": 6}), ("CartPole-v1", {})):
        model = PPO("MlpPolicy", make_vec_env(env_id, 1, **options), n_steps=4, batch_size=4, device="cpu")
        with pytest.raises(ValueError, match=f"env must be seen through a retina of ram_envs, got {env_id}"):
            gather_looks(model, env_id, options)
    model = RAM("RAMPolicy", make_vec_env("GlimpseCatch-v0", 1, size=6), class_loss="reinforce", device="cpu")
    frames, scores = watch_episode(model, "GlimpseCatch-v0", {"size": 6}, "test", 3)  # The game with that seed.
    assert len(frames) == 6 and scores is None
    assert describe_episode(frames, scores)["label"] is None
    with pytest.raises(ValueError, match="the model's observation_space must be"):
        gather_looks(model, "GlimpseMNIST-v0", DIGITS)


def test_tasks_that_make_or_move_their_scenes_themselves_have_no_known_place():
    class Drifts(ram_envs.GlimpseClassification):
        def advance(self, where):
            self.scenes[:] = np.roll(self.scenes, 1, axis=-1)

    tasks = [kind(2, **SQUARES) for kind in (ram_envs.GlimpseClassification, Drifts)]
    changes = ({"split": "train"}, {"canvas_size": None})
    tasks += [ram_envs.GlimpseClassification(2, **{**SQUARES, **change}) for change in changes]
    assert [task.object_places() is None for task in tasks] == [False, True, True, True]


def test_the_saliency_is_that_which_moves_the_gaze(tmp_path):
    options = {**DIGITS, "canvas_size": 40, "glimpse_size": 6, "num_scales": 2}
    small = {"hidden_size": 8, "core_size": 8, "location_input": "saliency", "location_scale": 1e-9}
    model = RAM("RAMPolicy", make_vec_env(ENV, 2, **options), seed=0, device="cpu", policy_kwargs=small, weight_average=0.5)
    frames, scores = watch_episode(model, ENV, options, "validation", 2)
    assert scores.shape == (3, 2, 3, 3) and len(frames) == 4
    assert frames[0].truth == ram_envs.load_images(DATASET, "validation").labels[2]
    weights = torch.from_numpy(scores).flatten(1).softmax(-1)  # (3, 18)
    # Middles of the cells, from the gaze, in pixels: 2 and 4 apart.
    cells = [(x * 2**k, y * 2**k) for k in (0, 1) for y in (-2, 0, 2) for x in (-2, 0, 2)]
    moved = (weights @ torch.tensor(cells).float()).numpy() / 20
    gaze = np.array([frame.look.location for frame in frames])
    np.testing.assert_allclose(np.clip(gaze[:-1] + moved, -1, 1), gaze[1:], atol=0.06)  # Cells lie half a pixel off the middle.
    shown = show_looks(model, ENV, options, tmp_path / "new", index=[2], split="validation")
    k, row, column = np.unravel_index(scores[0].argmax(), scores[0].shape)
    corner = frames[0].look.corners[k]
    assert shown["index"][0]["most_salient"][0] == [corner[0] + (2 * column + 1) * 2**k, corner[1] + (2 * row + 1) * 2**k]
    assert shown["index"][0]["label"] == str(frames[0].truth) and len(shown["index"][0]["said"]) == 3
    assert json.loads(json.dumps(shown)) == shown
    assert [Path(path).name for path in shown["pictures"]] == [f"looks_{ENV}_2.png", f"looks_{ENV}.png"]
    for path in shown["pictures"]:
        assert imread(path)[..., :3].std() > 0.1


def test_the_command_and_tensorboard(tmp_path, capsys):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    options = {"dataset": "mnist-5k", "num_glimpses": 2}
    how = {"n_timesteps": 96, "n_envs": 16, "env_kwargs": options, "evaluations": 2, "device": "cpu", "figures": False}
    how |= {"hyperparams": {"policy_kwargs.core_size": 16, "policy_kwargs.hidden_size": 8}, "test": False}
    plain = run(RunConfig(folder=tmp_path / "plain", **how))
    result = run(RunConfig(folder=tmp_path / "run", tensorboard_log=str(tmp_path / "tb"), **how))
    assert result["validation_error"] == plain["validation_error"]
    weights = [RAM.load(tmp_path / name / "model.zip", device="cpu").policy.state_dict() for name in ("plain", "run")]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])  # Watching moves nothing.
    [folder] = {path.parent for path in (tmp_path / "tb").rglob("events*")}
    events = EventAccumulator(str(folder), size_guidance={"images": 0}).Reload()
    assert {"looks/heat_maps", "looks/glimpses"} <= set(events.Tags()["images"])
    assert len(events.Images("looks/heat_maps")) == 2
    assert events.Scalars("validation_error")[-1].value == pytest.approx(result["validation_error"])
    assert "_hparams_/session_start_info" in events.summary_metadata
    stored = str(events.summary_metadata["_hparams_/session_start_info"])
    assert "policy_kwargs.core_size" in stored

    capsys.readouterr()
    out = tmp_path / "pictures"
    shown = main(["-i", str(tmp_path / "run"), "--looks", "--index", "0", "1", "--out", str(out)])
    assert json.loads(capsys.readouterr().out) == shown
    assert (shown["split"], shown["error"]) == ("validation", result["validation_error"])
    assert {path.name for path in out.iterdir()} == {f"looks_GlimpseMNIST-v0{end}.png" for end in ("", "_0", "_1")}
    with pytest.raises(SystemExit):
        main(["--looks"])
    assert "--looks need -i" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["-i", str(tmp_path / "run"), "--eval-only", "--split", "test"])
    assert "--split and --out are those of --looks" in capsys.readouterr().err


def test_the_page_can_be_followed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = (Path(__file__).parents[1] / "docs" / "looks.md").read_text("utf-8")
    names = {}
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(block.replace('pretrained_hyperparams(env_id)["env_kwargs"]', '{"dataset": "mnist-5k"}'), names)
    assert names["stares"].error > 5 > names["looks"].error
    assert {path.name for path in (tmp_path / "pictures").iterdir()} == {f"looks_GlimpseMNIST-v0{end}.png" for end in ("", "_3")}
