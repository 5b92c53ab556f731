import json

import imageio.v3 as imageio
import imageio_ffmpeg
import numpy as np
import pytest

pytest.importorskip("torch")

import train_agent
from agents import RAM
from train_agent import main

SMALL = ["--n-envs", "32", "--device", "cpu", "--env-kwargs", "dataset:mnist-5k", "num_glimpses:3"]
STEPS = 32 * 3 * 12


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder and the result of a short run."""
    logs = tmp_path_factory.mktemp("logs")
    result = main(["-n", str(STEPS), "--seed", "4", "-f", str(logs), *SMALL])
    return logs / "ram" / "GlimpseMNIST-v0_1", result


def test_a_run_leaves_what_it_promises(finished):
    folder, result = finished
    names = {path.name for path in folder.iterdir()}
    pictures = {"learning_curve.png", "glimpses.png"}
    assert names == {"args.yml", "result.json", "best_model.zip", "model.zip", "evaluations.npz"} | pictures
    assert json.loads((folder / "result.json").read_text()) == result
    assert result["env"] == "GlimpseMNIST-v0"
    assert (result["algo"], result["seed"]) == ("ram", 4)
    assert (result["dataset"], result["dataset_size"], result["test_episodes"]) == ("mnist-5k", 4000, 500)
    assert result["n_timesteps"] == STEPS
    assert result["test_error"] == pytest.approx(100 * (1 - result["success_rate"]))
    assert result["episodes_per_second"] > 0
    assert result["frames_per_second"] == pytest.approx(3 * result["episodes_per_second"], rel=0.01)
    assert result["train_seconds"] > 0
    assert {"commit", "command"} <= result.keys()
    evaluations = np.load(folder / "evaluations.npz")
    assert evaluations["results"].shape[1] == 500
    assert evaluations["timesteps"][-1] == STEPS


def test_eval_only_gives_the_figure_again(finished, capsys):
    folder, result = finished
    again = main(["-i", str(folder / "best_model.zip"), "--eval-only", *SMALL])
    assert again["test_error"] == result["test_error"]
    assert json.loads(capsys.readouterr().out)["test_episodes"] == 500
    with pytest.raises(SystemExit):
        main(["--eval-only"])


def test_a_trained_agent_is_where_training_begins(finished, tmp_path):
    folder, _ = finished
    main(["-i", str(folder / "model.zip"), "-n", "192", "-f", str(tmp_path), *SMALL])
    before, after = (
        RAM.load(path, device="cpu") for path in (folder / "model.zip", tmp_path / "ram/GlimpseMNIST-v0_1/model.zip")
    )
    change = (before.policy.class_head.weight - after.policy.class_head.weight).abs().max().item()
    assert 0 < change < 0.02
    assert after.num_timesteps == 192


def test_resume_goes_on_where_a_kill_left_it(finished, tmp_path, monkeypatch):
    _, unbroken = finished

    class KilledOnTheWay(RAM):
        def train(self):
            super().train()
            if self._n_updates == 7:
                raise KeyboardInterrupt

    monkeypatch.setitem(train_agent.ALGORITHMS, "ram", KilledOnTheWay)
    with pytest.raises(KeyboardInterrupt):
        main(["-n", str(STEPS), "--seed", "4", "-f", str(tmp_path), *SMALL])
    monkeypatch.undo()
    result = main(["--resume", "-f", str(tmp_path)])
    assert result["n_timesteps"] == STEPS
    timed = {"train_seconds", "train_cpu_seconds", "episodes_per_second", "frames_per_second", "command", "commit"}
    assert {k: v for k, v in result.items() if k not in timed} == {k: v for k, v in unbroken.items() if k not in timed}
    with pytest.raises(FileNotFoundError, match="no unfinished run"):
        main(["--resume", "-f", str(tmp_path)])


CATCH = ["--env", "GlimpseCatch-v0", "--env-kwargs", "size:6", "--n-envs", "32", "--device", "cpu"]


@pytest.mark.parametrize("algo", ["ram", "ppo"])
def test_catch_is_evaluated_on_so_many_games_and_filmed(algo, tmp_path, monkeypatch):
    monkeypatch.setattr("agents.evaluation.GAME_EVALUATIONS", {"validation": (40, 10**6), "test": (100, 2 * 10**6)})
    params = ["-params", "n_steps:10"]
    result = main(["--algo", algo, "-n", "1600", "-f", str(tmp_path), *CATCH, *params])
    folder = tmp_path / algo / "GlimpseCatch-v0_1"
    assert result["test_episodes"] == 100
    assert "dataset" not in result
    assert np.load(folder / "evaluations.npz")["successes"].shape[1] == 40
    assert imageio.improps(folder / "games.gif").shape[0] > 6 * 5  # Six games of a first picture and five steps.
    film = tmp_path / "film.mp4"
    shown = main(["--algo", algo, "-i", str(folder / "best_model.zip"), "--eval-only", "--record", str(film), *CATCH])
    assert shown["test_error"] == result["test_error"]
    assert imageio_ffmpeg.count_frames_and_secs(str(film))[0] == shown["frames"]
    with pytest.raises(ValueError, match=r"must end in one of \('.gif', '.mp4'\)"):
        main(["--algo", algo, "-i", str(folder / "best_model.zip"), "--record", str(tmp_path / "film.avi"), *CATCH])


def test_stopping_and_zooming_agents_are_drawn(tmp_path):
    options = ["stop_action:True", "zoom_action:True", "glimpse_cost:0.1", "canvas_size:40"]
    main(["-n", "960", "-f", str(tmp_path), *SMALL, *options, "-params", "policy_kwargs:{}"])
    assert (tmp_path / "ram/GlimpseMNIST-v0_1/glimpses.png").stat().st_size > 10_000


def test_minutes_and_params(tmp_path):
    options = ["--minutes", "0.02", "--eval-freq", "3200", "-params", "vf_coef:0.25", "class_loss_steps:last", *SMALL]
    result = main([*options, "-P", "-tb", str(tmp_path / "tb"), "-f", str(tmp_path)])
    assert result["train_seconds"] == pytest.approx(1.2, abs=1.0)
    model = RAM.load(tmp_path / "ram/GlimpseMNIST-v0_1/model.zip", device="cpu")
    assert (model.vf_coef, model.class_loss_steps) == (0.25, "last")
    assert model.policy.optimizer.param_groups[0]["lr"] < 1e-3
    assert list((tmp_path / "tb").rglob("events*"))


def test_pairs_without_a_colon_are_named(capsys):
    with pytest.raises(SystemExit):
        main(["-params", "nothing"])
    assert "'nothing' must have the form NAME:VALUE" in capsys.readouterr().err


def test_help_explains_each_option(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    text = capsys.readouterr().out
    for option in ("--algo", "--env", "--seed", "--n-envs", "--eval-freq", "--progress", "--log-folder", "--tensorboard-log"):
        assert option in text
    for option in ("-params", "--trained-agent", "--minutes", "--eval-only", "--resume", "--env-kwargs"):
        assert option in text
