import json
import shlex
import signal
import sys

import imageio.v3 as imageio
import imageio_ffmpeg
import numpy as np
import pytest

torch = pytest.importorskip("torch")

import yaml
from few_games import EPISODES

from ram_envs.agents import RAM, load_pretrained, save_pretrained
from train_agent import import_modules, main, parse_config

CATCH = ["--env", "FewGames-v0", "--n-envs", "32", "--device", "cpu"]
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
    pictures, zoo = {"learning_curve.png", "glimpses.png"}, {"GlimpseMNIST-v0", "GlimpseMNIST-v0.zip"}
    assert names == {"args.yml", "result.json", "best_model.zip", "model.zip", "evaluations.npz"} | pictures | zoo
    assert json.loads((folder / "result.json").read_text("utf-8")) == result
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
    again = main(["-i", str(folder), "--eval-only"])
    assert again["test_error"] == result["test_error"]
    assert json.loads(capsys.readouterr().out)["test_episodes"] == 500
    for wrong in (["--eval-only"], ["-i", str(folder), "--eval-only", "--resume"]):
        with pytest.raises(SystemExit):
            main(wrong)


def test_without_a_test_validation_is_all_that_is_seen(tmp_path, capsys):
    result = main(["--no-test", "-n", str(32 * 3), "-f", str(tmp_path), *SMALL])
    assert "test_error" not in result
    assert f"Validation error: {result['validation_error']:.2f} %" in capsys.readouterr().out
    assert (tmp_path / "ram/GlimpseMNIST-v0_1/glimpses.png").exists()


def test_a_trained_agent_is_where_training_begins(finished, tmp_path):
    folder, _ = finished
    main(["-i", str(folder / "model.zip"), "-n", "192", "-f", str(tmp_path), *SMALL])
    before, after = (
        RAM.load(path, device="cpu") for path in (folder / "model.zip", tmp_path / "ram/GlimpseMNIST-v0_1/model.zip")
    )
    change = (before.policy.class_head.weight - after.policy.class_head.weight).abs().max().item()
    assert 0 < change < 0.02
    assert after.num_timesteps == 192


@pytest.fixture
def pretrained(finished, tmp_path, monkeypatch):
    """The result of the run whose agent is the package's own for GlimpseMNIST-v0."""
    folder, result = finished
    monkeypatch.setattr("ram_envs.agents.pretrained.WEIGHTS", tmp_path / "weights")
    save_pretrained(RAM.load(folder / "best_model.zip", device="cpu"), tmp_path / "weights", "GlimpseMNIST-v0", result)
    return result


def test_the_pretrained_agent_gives_its_figure_again(pretrained, tmp_path):
    asked = ["-i", "pretrained", "--device", "cpu"]
    film = tmp_path / "film.gif"
    shown = main([*asked, "--eval-only", "--record", str(film)])  # With three glimpses of mnist-5k, as it was trained.
    assert shown["test_error"] == pretrained["test_error"]
    assert (shown["test_episodes"], shown["mean_length"]) == (500, 3)
    assert imageio.improps(film).shape[0] == shown["frames"] == 6 * (1 + 3)
    fewer = main([*asked, "--eval-only", "--env-kwargs", "num_glimpses:2"])
    assert (fewer["test_episodes"], fewer["mean_length"]) == (500, 2)


def test_the_pretrained_agent_is_where_training_begins(pretrained, tmp_path):
    asked = ["-i", "pretrained", "--device", "cpu", "--n-envs", "32", "--evaluations", "1", "-f", str(tmp_path)]
    result = main([*asked, "-n", "192"])
    assert (result["n_timesteps"], result["dataset"], result["env_kwargs"]) == (192, "mnist-5k", pretrained["env_kwargs"])
    assert result["hyperparams"]["learning_rate"] == pretrained["hyperparams"]["learning_rate"]
    before = load_pretrained("GlimpseMNIST-v0", device="cpu")
    after = RAM.load(tmp_path / "ram/GlimpseMNIST-v0_1/model.zip", device="cpu")
    change = (before.policy.class_head.weight - after.policy.class_head.weight).abs().max().item()
    assert 0 < change < 0.01


def test_where_there_is_no_pretrained_agent_those_that_are_get_named(pretrained, tmp_path, capsys):
    for arguments, message in (
        (["--env", "GlimpseCatch-v0"], "env_id must be one with weights (GlimpseMNIST-v0), got 'GlimpseCatch-v0'"),
        (["--algo", "ppo"], 'trained_agent="pretrained" is an agent of the algorithm "ram", got algo=\'ppo\''),
    ):
        with pytest.raises(SystemExit):
            main(["-i", "pretrained", "-f", str(tmp_path / "logs"), *arguments])
        assert message in capsys.readouterr().err
    assert not (tmp_path / "logs").exists()
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "(there are: GlimpseCatch-v0, GlimpseClutteredMNIST-v0" in " ".join(capsys.readouterr().out.split())


def test_resume_begins_where_a_kill_left_it(finished, tmp_path, monkeypatch, capsys):
    _, unbroken = finished
    train = RAM.train

    def killed_on_the_way(self):
        train(self)
        if self._n_updates == 7:
            raise KeyboardInterrupt

    monkeypatch.setattr(RAM, "train", killed_on_the_way)
    with pytest.raises(SystemExit) as stopped:
        main(["-n", str(STEPS), "--seed", "4", "-f", str(tmp_path), *SMALL])
    assert stopped.value.code == 128 + signal.SIGINT
    monkeypatch.undo()
    [command] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("Stopped. To resume: ")]
    for other in (
        ["--seed", "5"],
        ["-params", "learning_rate:0.5"],
        ["-n", "9000", "--preset", "paper"],
        ["--folder", "nowhere"],
    ):
        with pytest.raises(SystemExit):
            main(["--resume", "-f", str(tmp_path), *other])
        assert capsys.readouterr().err.splitlines()[-1].startswith("train_agent.py: error: ")
    result = main(shlex.split(command.removeprefix("Stopped. To resume: "))[2:])
    assert result["n_timesteps"] == STEPS
    timed = {"train_seconds", "train_cpu_seconds", "episodes_per_second", "frames_per_second", "command", "commit"}
    assert {k: v for k, v in result.items() if k not in timed} == {k: v for k, v in unbroken.items() if k not in timed}
    with pytest.raises(SystemExit):
        main(["--resume", "-f", str(tmp_path)])
    assert "error: there is no unfinished run with a checkpoint in" in capsys.readouterr().err


def test_a_folder_of_ones_own(finished, tmp_path, capsys):
    folder, result = finished
    assert main(["-n", str(STEPS), "--seed", "4", "--folder", str(folder), *SMALL]) == result  # It is finished.
    with pytest.raises(SystemExit):
        main(["-n", str(STEPS), "--seed", "5", "--folder", str(folder), *SMALL])
    assert "holds a run with seed=4, asked for was 5" in capsys.readouterr().err
    here = tmp_path / "here"
    main(["-n", "96", "--evaluations", "1", "--folder", str(here), *SMALL])
    assert (here / "result.json").exists()


def test_games_are_evaluated_on_a_number_of_episodes_and_filmed(tmp_path, capsys):
    asked = ["-n", "800", "-f", str(tmp_path), *CATCH, "--evaluations", "2"]
    result = main([*asked, "-params", "n_steps:10", "class_loss:reinforce", "matmul_precision:medium"])
    folder = tmp_path / "ram" / "FewGames-v0_1"
    assert result["test_episodes"] == EPISODES["test"]
    assert "dataset" not in result
    assert np.load(folder / "evaluations.npz")["successes"].shape[1] == EPISODES["validation"]
    assert imageio.improps(folder / "games.gif").shape[0] == 6 * (1 + 5)  # A picture before each step and one at the end.
    assert (result["hyperparams"]["matmul_precision"], torch.get_float32_matmul_precision()) == ("medium", "medium")
    torch.set_float32_matmul_precision("highest")
    trained, film = ["-i", str(folder), "--device", "cpu"], tmp_path / "film.mp4"  # The run tells the environment and all else.
    shown = main([*trained, "--eval-only", "--record", str(film)])
    assert torch.get_float32_matmul_precision() == "medium"
    assert (shown["env"], shown["test_error"]) == ("FewGames-v0", result["test_error"])
    assert imageio_ffmpeg.count_frames_and_secs(str(film))[0] == shown["frames"]
    assert main([*trained, "--record", str(film), "--index", "3", "5"])["frames"] == shown["frames"] / 3
    assert main([*trained, "--record", str(film), "--episodes", "3"])["frames"] == shown["frames"] / 2
    for arguments, message in (
        (["--record", str(tmp_path / "film.avi")], "must end in"),
        (["--record", str(film), "--episodes", "0"], "number of episodes must be at least 1, got 0"),
        (["--eval-only", "--index", "3"], "it needs --record, --watch or --looks"),
        (["--looks", "--episodes", "3"], "it needs --record or --watch"),
    ):
        with pytest.raises(SystemExit):
            main([*trained, *arguments])
        assert message in capsys.readouterr().err


@pytest.mark.usefixtures("no_screen")
def test_the_pretrained_agent_is_watched(pretrained, monkeypatch):
    monkeypatch.setattr("ram_envs.rendering.Window.show", lambda window, *_, **__: None)
    asked = ["-i", "pretrained", "--device", "cpu", "--watch", "--episodes", "2", "--index", "7"]
    assert main(asked) == {"env": "GlimpseMNIST-v0", "episodes": 2}


def test_stopping_and_zooming_agents_are_drawn(tmp_path):
    options = ["stop_action:True", "zoom_action:True", "glimpse_cost:0.1", "canvas_size:40"]
    main(["-n", "960", "-f", str(tmp_path), *SMALL, *options, "-params", "policy_kwargs:{}"])
    assert imageio.imread(tmp_path / "ram/GlimpseMNIST-v0_1/glimpses.png").std() > 0


def test_minutes_and_hyperparams(tmp_path):
    options = ["--minutes", "0.01", "--clock", "cpu", "-params", "vf_coef:0.25", "policy_kwargs.core:lstm", *SMALL]
    result = main([*options, "--evaluations", "2", "-P", "-tb", str(tmp_path / "tb"), "-f", str(tmp_path)])
    assert result["train_cpu_seconds"] >= 0.6
    model = RAM.load(tmp_path / "ram/GlimpseMNIST-v0_1/model.zip", device="cpu")
    assert (model.vf_coef, model.policy.options.core, model.policy.options.path_steps) == (0.25, "lstm", 7)
    assert model.policy.optimizer.param_groups[0]["lr"] < 1e-3
    assert list((tmp_path / "tb").rglob("events*"))


MODULE = """
import gymnasium as gym
import numpy as np

from ram_envs.agents import register_algorithm

kinds = {"entry_point": "ram_envs.env:GlimpseEnv", "vector_entry_point": "ram_envs.vector_env:GlimpseVectorEnv"}
gym.register("Small-v0", **kinds, kwargs={"task": "few-games", "size": 6})


@register_algorithm("at_random", action_format="multidiscrete")
def at_random(env, seed):
    rng, steps = np.random.default_rng(seed), 0
    env.reset()

    def predict(obs, state, episode_start, deterministic):
        return rng.integers([5, 5, 3], size=(len(episode_start), 3)), state

    while True:
        env.step(rng.integers([5, 5, 3], size=(env.num_envs, 3)))
        steps += env.num_envs
        yield steps, predict
"""


def test_modules_register_algorithms_and_environments(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", list(sys.path))
    (tmp_path / "mine_of_the_test.py").write_text(MODULE, encoding="utf-8")
    asked = ["--imports", "mine_of_the_test", "--env", "Small-v0", "-n", "64", "--n-envs", "4", "--evaluations", "2"]
    result = main([*asked, "--algo", "at_random", "--folder", "run"])
    assert (result["algo"], result["env"], result["n_timesteps"]) == ("at_random", "Small-v0", 64)
    assert yaml.safe_load((tmp_path / "run/args.yml").read_text("utf-8"))["config"]["imports"] == ["mine_of_the_test"]
    shown = main(["-i", "run", "--eval-only", "--trust"])  # A generator's `predict` is a pickle.
    assert shown["test_episodes"] == result["test_episodes"]
    for arguments, message in (
        (["--algo", "a3c"], "algo must be one of ('ram', "),
        (["--imports", "no_such_module_here"], "No module named 'no_such_module_here'"),
        (["--clock", "sun"], "argument --clock: invalid choice"),
    ):
        with pytest.raises(SystemExit):
            main(arguments)
        assert message in capsys.readouterr().err


def test_installed_packages_come_before_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", list(sys.path))
    (tmp_path / "mine_too.py").write_text("", encoding="utf-8")
    (tmp_path / "wave.py").write_text("raise AssertionError", encoding="utf-8")
    monkeypatch.delitem(sys.modules, "wave", raising=False)
    import_modules(["mine_too"])
    import_modules(["wave"])
    assert sys.path.count(str(tmp_path)) == 1


WRONG = [
    *("--seed -1", "--seed 5000000000", "--num-threads 0", "--device foo", "-params n_timesteps:-5", "-params n_envs:0"),
    *("-params learning_rate:abc", "-params policy_kwargs.cores:lstm", "--env-kwargs sise:8", "--preset nope", "-n 0"),
    *("--env NoSuch-v0", "--env ../../../outside/x-v0", "-i /nope.zip", "-i /etc/passwd", "-i /etc", "--minutes nan"),
    *("--n-envs 501", "--algo nope", "-params class_loss:10**2", "--seed x", "--no-such-option", "--resume", "-params a"),
    *("--folder /proc/nowhere/run", "--imports no_such_module"),
]


@pytest.mark.parametrize("line", WRONG)
def test_a_wrong_command_ends_with_one_line_and_leaves_no_folder(line, tmp_path, capsys):
    sizes = [] if line.startswith(("-params n_", "-n ", "--n-envs")) else ["--n-envs", "4"]
    with pytest.raises(SystemExit) as ended:
        main(["--env", "FewGames-v0", "-n", "40", *sizes, "--no-test", "-f", str(tmp_path / "logs"), *line.split()])
    assert ended.value.code == 2
    [error] = capsys.readouterr().err.splitlines()
    assert error.startswith("train_agent.py: error: ")
    assert not [path for path in tmp_path.rglob("*") if path.name != "logs"]


@pytest.mark.parametrize("option", ["-params", "--hyperparams", "--env-kwargs"])
def test_pairs_without_a_colon_are_named(option, capsys):
    with pytest.raises(SystemExit):
        main([option, "nothing"])
    assert "'nothing' must have the form NAME:VALUE" in capsys.readouterr().err


def test_what_a_command_line_asks_for():
    line = "--algo ppo --env GlimpseCatch-v0 --preset best --minutes 2 --folder there -params gamma:0.9 a.b:x --env-kwargs size:6"
    config = parse_config(line.split())
    assert (config.algo, config.env, config.preset, config.minutes) == ("ppo", "GlimpseCatch-v0", "best", 2.0)
    assert (config.hyperparams, config.env_kwargs) == ({"gamma": 0.9, "a.b": "x"}, {"size": 6})
    assert (config.folder, config.command) == ("there", f"python train_agent.py {line}")
    assert config.test and not parse_config(["--no-test"]).test
    with pytest.raises(ValueError, match="n_envs must be at least 1, got 0"):
        parse_config(["--n-envs", "0"])


def test_help_explains_each_option(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    for option in ("--algo", "--env", "--seed", "--n-envs", "--eval-freq", "--progress", "--log-folder", "--tensorboard-log"):
        assert option in text
    for option in ("-params", "--hyperparams", "--trained-agent", "--minutes", "--eval-only", "--resume", "--env-kwargs"):
        assert option in text
    for option in (
        "--folder",
        "--trust",
        "pickled code",
        "--clock",
        "--evaluations",
        "--imports",
        "--record",
        "episode_ppo, episode_a2c",
    ):
        assert option in text
