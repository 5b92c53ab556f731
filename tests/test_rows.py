import pytest

from benchmarks.rows import OTHERS, TASKS, Recipe, own_recipe, recipe_of
from ram_envs import ENVIRONMENTS

MNIST, CLUTTERED, CATCH = "GlimpseMNIST-v0", "GlimpseClutteredMNIST-v0", "GlimpseCatch-v0"


def test_a_task_has_the_glimpses_of_its_environment_and_a_figure_for_them():
    for env_id, task in TASKS.items():
        assert task.glimpses == ENVIRONMENTS[env_id].get("num_glimpses", 24)  # Catch: one for each place of the ball.
        assert task.glimpses in task.paper
        assert task.others.keys() <= OTHERS.keys()


@pytest.mark.parametrize(
    ("recipe", "name", "arguments"),
    [
        (own_recipe(TASKS[MNIST], "best", 7), "ram_best", ["--env", MNIST, "--preset", "best"]),
        (
            own_recipe(TASKS[MNIST], "paper", 4),
            "ram_paper_4glimpses",
            ["--env", MNIST, "--preset", "paper", "--env-kwargs", "num_glimpses:4"],
        ),
        (Recipe(MNIST, "fc256"), "fc256", ["--algo", "fc256", "--env", MNIST]),
    ],
)
def test_a_recipe_in_names_and_arguments(recipe, name, arguments):
    assert (recipe.name, recipe.arguments) == (name, arguments)
    assert recipe.run_name(2) == f"GlimpseMNIST-v0/{name}_seed2"


WHOLE = {"num_scales": 1, "num_glimpses": 1, "initial_location": "center", "glimpse_size": 60}


@pytest.mark.parametrize(
    ("result", "recipe"),
    [
        ({"env": MNIST, "algo": "ram", "preset": "best", "dataset": "mnist"}, Recipe(MNIST, preset="best")),
        ({"env": MNIST, "algo": "ram", "preset": "best", "env_kwargs": {"num_glimpses": 7}}, Recipe(MNIST, preset="best")),
        (
            {"env": MNIST, "algo": "ram", "preset": "paper", "env_kwargs": {"num_glimpses": 4, "image_order": "random"}},
            Recipe(MNIST, preset="paper", glimpses=4),
        ),
        ({"env": CATCH, "algo": "ram", "preset": "best", "env_kwargs": {}}, Recipe(CATCH, preset="best")),
        ({"env": CLUTTERED, "algo": "fc64", "preset": None, "env_kwargs": WHOLE}, Recipe(CLUTTERED, "fc64")),
        ({"env": CLUTTERED, "algo": "ram_random", "env_kwargs": {"num_clutter": 4}}, Recipe(CLUTTERED, "ram_random")),
    ],
)
def test_where_a_run_stands(result, recipe):
    assert recipe_of(result) == recipe


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"env": "Catch-v0"}, r"env must be one of GlimpseMNIST-v0, .*, got 'Catch-v0'"),
        ({"preset": None}, r"ram with a preset out of paper, best, or fc256 without one, or conv without one, got ram .* None"),
        ({"algo": "fc256"}, r"got fc256 with preset 'best'"),
        ({"algo": "ram_random", "preset": None}, r"got ram_random with preset None"),
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
        recipe_of({"env": MNIST, "algo": "ram", "preset": "best", **changes})
