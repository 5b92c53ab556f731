import re

import numpy as np
import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("rich")
pytest.importorskip("scipy")

from finished_runs import publish_run

from ram_envs.benchmarks.leaderboard import main, write_page

MNIST, CATCH = "GlimpseMNIST-v0", "GlimpseCatch-v0"
COMMAND = "python benchmarks/compare.py --minutes 3"


@pytest.fixture
def table(tmp_path):
    """RAM with two seeds in two environments, PPO with one in one, and a classifier that can't play."""
    table = tmp_path / "results.jsonl"
    for env_id, algo, seed, error in (
        (MNIST, "ram", 0, 3),
        (MNIST, "ram", 1, 1),
        (CATCH, "ram", 0, 13),
        (CATCH, "ram", 1, 11),
        (CATCH, "ppo", 0, 50),
        (MNIST, "cnn", 0, 0.5),
    ):
        facts = {"comparison_command": COMMAND, "summary": f"What {algo} is.", "sees_scene": algo == "cnn"}
        facts["uses_labels"] = algo != "ppo"
        publish_run(table, f"{algo}_seed{seed}", env_id, algo=algo, seed=seed, error=error, facts=facts)
    return table


def test_the_page_holds_the_figures_and_where_they_come_from(table, tmp_path):
    page = tmp_path / "docs" / "leaderboard.md"
    write_page(table, page)
    text = page.read_text("utf-8")
    # In games all learn from the reward; a classifier of whole scenes is compared with its like.
    kinds = re.findall(r"^## (.*)\n\n.*\n\n(\| algorithm .*)\n.*\n((?:\|.*\n)*)", text, re.MULTILINE)
    assert kinds[:3] == [
        ("Glimpses, reward alone", f"| algorithm | {CATCH} |", "| ram | **88.00 ± 1.41 (2)** |\n| ppo | 50.00 (1) |\n"),
        ("Glimpses and labels", f"| algorithm | {MNIST} |", "| ram | **98.00 ± 1.41 (2)** |\n"),
        ("The whole scene and labels", f"| algorithm | {MNIST} |", "| cnn | **99.50 (1)** |\n"),
    ]
    assert "Half-way from chance to perfect are 55.0 % in GlimpseMNIST-v0, 54.1 % in GlimpseCatch-v0." in text
    assert "| ram | 7 M, 180 s | 7 M, 180 s |" in text
    assert "- **cnn**: What cnn is." in text
    # Chance is 0 and no failure 1; of four runs the middle two count.
    middle = sorted([(0.97 - 0.1) / 0.9, (0.99 - 0.1) / 0.9, (0.87 - 0.082) / 0.918, (0.89 - 0.082) / 0.918])[1:3]
    assert f"| ram | {np.mean(middle):.3f} [" in text
    assert "### GlimpseMNIST-v0, GlimpseCatch-v0" in text
    assert COMMAND in text and "c0ffee" in text and "mnist, 50,000 to learn from" in text
    assert "[results.jsonl](../results.jsonl)" in text
    pictures = re.findall(r"!\[.*\]\((.*)\)", text)
    assert pictures == [f"leaderboard/{name}.png" for name in ("aggregate_1", MNIST, CATCH)]
    assert all((page.parent / picture).is_file() for picture in pictures)


def test_one_seed_is_called_so_and_so_is_a_commit_with_changes(tmp_path):
    publish_run(tmp_path / "results.jsonl", "ram_seed0", MNIST, commit="c0ffee-dirty")
    main([str(tmp_path / "results.jsonl"), "--page", str(tmp_path / "board.md")])
    text = (tmp_path / "board.md").read_text("utf-8")
    assert "one seed each" in text
    assert "All environments together" not in text
    assert "The command was not noted." in text
    assert "- **ram**: no description" in text
    assert "- Commit: c0ffee-dirty\n" in text


def test_environments_of_ones_own_have_no_chance_and_a_name_for_the_disk(tmp_path):
    for env_id in ("mine/Own-v0", MNIST):
        publish_run(tmp_path / "results.jsonl", "ram_seed0", env_id)
    write_page(tmp_path / "results.jsonl", tmp_path / "board.md")
    text = (tmp_path / "board.md").read_text("utf-8")
    assert "Chance is 0.1 in GlimpseMNIST-v0, not known and taken as 0 in mine/Own-v0." in text
    assert (tmp_path / "board" / "mine_Own-v0.png").exists()


def test_a_table_that_is_not_there_is_named(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main([str(tmp_path / "nothing.jsonl")])
    assert "nothing.jsonl" in capsys.readouterr().err
