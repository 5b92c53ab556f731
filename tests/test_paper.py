import pytest

from ram_envs import env_defaults

pytest.importorskip("torch")

from ram_envs.agents.training.config import RunConfig, read_hyperparams
from ram_envs.benchmarks.paper import FURTHER, OTHERS, TASKS, Entry, entry_of, gather, ram_entry

MNIST, CLUTTERED, CATCH = "GlimpseMNIST-v0", "GlimpseClutteredMNIST-v0", "GlimpseCatch-v0"


def test_a_task_has_the_glimpses_of_its_environment_and_a_figure_for_them():
    for env_id, task in TASKS.items():
        assert task.glimpses == env_defaults(env_id).get("num_glimpses", 24)  # Catch: one for each place of the ball.
        assert task.glimpses in task.paper
        assert task.others.keys() <= OTHERS.keys()
    assert (TASKS[MNIST].figure(0.6), TASKS[CATCH].figure(0.6)) == (0.6, 99.4)


def test_further_tasks_are_what_their_presets_make_of_the_environment():
    for task in FURTHER:
        _, options = read_hyperparams(RunConfig(task.env_id, preset=task.preset))
        assert task.options.items() <= options.items()
        assert entry_of({"env": task.env_id, "algo": "ram", "preset": task.preset, "env_kwargs": options}).preset == task.preset


@pytest.mark.parametrize(
    ("entry", "name"),
    [
        (ram_entry(TASKS[MNIST], "best", 7), "ram_best"),
        (ram_entry(TASKS[MNIST], "paper", 4), "ram_paper_4glimpses"),
        (Entry(MNIST, "fc256"), "fc256"),
    ],
)
def test_an_entry_names_its_runs(entry, name):
    assert (entry.name, entry.run(2)) == (name, f"{name}_seed2")


ANYWHERE = {"paddle_start": "random", "initial_location": "random"}
WHOLE = {"num_scales": 1, "num_glimpses": 1, "initial_location": "center", "glimpse_size": "scene"}


@pytest.mark.parametrize(
    ("row", "entry"),
    [
        ({"env": MNIST, "algo": "ram", "preset": "best", "dataset": "mnist"}, Entry(MNIST, preset="best")),
        ({"env": MNIST, "algo": "ram", "preset": "best", "env_kwargs": {"num_glimpses": 7}}, Entry(MNIST, preset="best")),
        (
            {"env": MNIST, "algo": "ram", "preset": "paper", "env_kwargs": {"num_glimpses": 4, "image_order": "random"}},
            Entry(MNIST, preset="paper", glimpses=4),
        ),
        ({"env": CATCH, "algo": "ram", "preset": "best", "env_kwargs": {}}, Entry(CATCH, preset="best")),
        ({"env": CATCH, "algo": "ram", "preset": "random", "env_kwargs": ANYWHERE}, Entry(CATCH, preset="random")),
        ({"env": CLUTTERED, "algo": "fc64", "preset": None, "env_kwargs": WHOLE}, Entry(CLUTTERED, "fc64")),
        ({"env": CLUTTERED, "algo": "fc64", "env_kwargs": {**WHOLE, "glimpse_size": 60}}, Entry(CLUTTERED, "fc64")),
        ({"env": CLUTTERED, "algo": "ram_random", "env_kwargs": {"num_clutter": 4}}, Entry(CLUTTERED, "ram_random")),
    ],
)
def test_where_a_run_stands(row, entry):
    assert entry_of(row) == entry


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"env": "Catch-v0"}, r"env must be one of GlimpseMNIST-v0, .*, got 'Catch-v0'"),
        (
            {"preset": None},
            r"out of paper, best, adaptive, center, or fc256 without one, or conv without one, got ram .* None",
        ),
        ({"algo": "fc256"}, r"got fc256 with preset 'best'"),
        ({"algo": "ram_random", "preset": None}, r"got ram_random with preset None"),
        ({"env": CATCH, "preset": "random"}, "paddle_start='middle' makes another .*those of the preset random alone"),
        ({"env": CATCH, "env_kwargs": ANYWHERE}, "paddle_start='random' makes another .* its own options alone"),
        ({"preset": "adaptive", "env_kwargs": {"num_glimpses": 4}}, "num_glimpses=4 makes another .* the preset adaptive alone"),
        ({"dataset": "mnist-5k"}, r"dataset must be 'mnist', got 'mnist-5k'"),
        ({"env_kwargs": {"num_glimpses": 9}}, r"num_glimpses in GlimpseMNIST-v0 must be one of 2, 3, 4, 5, 6, 7, got 9"),
        ({"env_kwargs": {"glimpse_size": 12}}, r"glimpse_size=12 makes another task of GlimpseMNIST-v0"),
        ({"env_kwargs": {"initial_location": "center"}}, r"initial_location='center' makes another task"),
        (
            {"env": CLUTTERED, "algo": "ram_random", "preset": None, "env_kwargs": {"num_glimpses": 4}},
            r"num_glimpses=4 makes another task",
        ),
        (
            {"env": CLUTTERED, "algo": "fc64", "preset": None, "env_kwargs": {**WHOLE, "num_clutter": 0}},
            r"num_clutter=0 makes another task",
        ),
    ],
)
def test_a_run_that_stands_nowhere(changes, message):
    with pytest.raises(ValueError, match=message):
        entry_of({"env": MNIST, "algo": "ram", "preset": "best", **changes})


def make_result(seed, run="ram_best", **env_kwargs):
    return {"env": MNIST, "run": run, "algo": "ram", "preset": "best", "seed": seed, "env_kwargs": env_kwargs}


def test_results_are_gathered_by_entry_and_seed_and_those_of_none_are_named():
    entries, left_out = gather([make_result(1), make_result(0), make_result(0, num_glimpses=4), make_result(2, glimpse_size=28)])
    best, fewer = (ram_entry(TASKS[MNIST], "best", glimpses) for glimpses in (7, 4))
    assert {place: [row["seed"] for row in group] for place, group in entries.items()} == {best: [0, 1], fewer: [0]}
    assert left_out == [
        "GlimpseMNIST-v0, ram_best: glimpse_size=28 makes another task of GlimpseMNIST-v0: the tables have it with its own "
        "options alone"
    ]


def test_a_seed_counts_once():
    with pytest.raises(ValueError, match=r"^GlimpseMNIST-v0 has two runs with one seed among a, b: remove one"):
        gather([make_result(0, "a"), make_result(0, "b")])
