import argparse
import os
import signal
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

pytest.importorskip("torch")

from ram_envs.agents.training.config import read_hyperparams
from ram_envs.agents.training.run import open_run, store
from ram_envs.benchmarks.jobs import (
    TRAIN,
    Job,
    complete,
    describe,
    difference,
    ended_by_signals,
    make_job,
    positive,
    run_all,
    run_script,
    tail,
)
from ram_envs.benchmarks.results import read_results
from train_agent import parse_config

ARGUMENTS = ["--algo", "ppo", "--env", "GlimpseCatch-v0", "--seed", "1", "-n", "1000", "--device", "cpu"]


def job(folder, name, code):
    return Job(folder / name, (sys.executable, "-c", code))


def test_a_job_is_a_process_of_train_agent_with_its_log_in_its_folder(tmp_path):
    folder = tmp_path / "GlimpseCatch-v0" / "ppo_seed1"
    one = make_job(ARGUMENTS, folder, TRAIN, summary="PPO")
    assert Path(one.command[1]).name == "train_agent.py"
    assert list(one.command[2:]) == [*ARGUMENTS, "--folder", str(folder)]
    assert (one.name, one.log, one.result) == ("GlimpseCatch-v0/ppo_seed1", folder / "log.txt", folder / "result.json")
    assert one.facts == {"summary": "PPO"}


def begin_run(folder, **hyperparams):
    """A run as train_agent.py begins it, with other hyperparameters than those of now."""
    run = open_run(parse_config([*ARGUMENTS, "--folder", str(folder)]))
    run.hyperparams |= hyperparams
    store(run, pytest.importorskip("torch").device("cpu"))


def test_a_run_that_was_asked_for_differently_or_has_other_hyperparameters_is_not_taken(tmp_path):
    begin_run(tmp_path / "same")
    make_job(ARGUMENTS, tmp_path / "same", TRAIN)
    with pytest.raises(ValueError, match=r"same holds a run with n_timesteps=1000, asked for was 2000"):
        make_job([*ARGUMENTS, "-n", "2000"], tmp_path / "same", TRAIN)
    rate = read_hyperparams(parse_config(ARGUMENTS))[0].get("learning_rate")
    begin_run(tmp_path / "other", learning_rate=0.1)
    with pytest.raises(
        ValueError, match=rf"other holds a run with learning_rate=0.1, its hyperparameters have {rate!r} now: take"
    ):
        make_job(ARGUMENTS, tmp_path / "other", TRAIN)


def test_differences_are_named():
    stored = {"gamma": 0.9, "n_envs": 2}
    assert difference(stored, dict(stored)) is None
    assert difference(stored, {"n_envs": 2}) == "gamma=0.9, its hyperparameters have None"
    assert difference(stored, {**stored, "clip_range": 0.2}) == "clip_range=None, its hyperparameters have 0.2"


FINISH = """
import sys
sys.path[:0] = {paths!r}
from finished_runs import finish_run
from pathlib import Path
finish_run(Path({folder!r}) / "made", "GlimpseCatch-v0")
for file in (Path({folder!r}) / "made").iterdir():
    file.rename(Path({folder!r}) / file.name)
"""


def test_jobs_are_completed_published_and_not_run_again(tmp_path, capsys):
    table = tmp_path / "results.jsonl"
    paths = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]
    code = FINISH.format(paths=paths, folder=str(tmp_path / "ram_seed0"))
    fine = Job(tmp_path / "ram_seed0", (sys.executable, "-c", code), {"summary": "RAM"})
    broken = job(tmp_path, "broken", "raise SystemExit('it broke')")
    assert complete([broken, fine], table, 1) == [broken]
    out, err = capsys.readouterr()
    assert err.endswith(f"\n{broken.name} failed. The end of {broken.log}:\nit broke\n")
    assert "2 runs, 0 finished already; 1 side by side" in out
    assert f"[1/2] {broken.name}: failed with exit status 1" in out
    assert f"[2/2] {fine.name}: success 98.00 %, 7,000,000 steps, 180 CPU seconds" in out
    assert [(one["run"], one["summary"]) for one in read_results(table)] == [("ram_seed0", "RAM")]
    table.unlink()
    assert complete([fine], table, 1) == []
    assert "1 runs, 1 finished already" in capsys.readouterr().out
    assert [one["run"] for one in read_results(table)] == ["ram_seed0"]


def test_results_in_words():
    result = {"success_rate": 0.98765, "n_timesteps": 14_000_000, "train_cpu_seconds": 280.4}
    assert describe(result) == "success 98.77 %, 14,000,000 steps, 280 CPU seconds"


def test_numbers_must_be_above_0(capsys):
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=positive(int))
    assert parser.parse_args(["--seeds", "2"]).seeds == 2
    for text, message in (("0", "argument --seeds: must be above 0, got 0"), ("x", "argument --seeds: invalid int value: 'x'")):
        with pytest.raises(SystemExit):
            parser.parse_args(["--seeds", text])
        assert message in capsys.readouterr().err


def test_a_script_ends_with_its_status_and_says_what_was_wrong(capsys):
    def wrong():
        raise FileNotFoundError("nothing there")

    def stopped():
        raise KeyboardInterrupt

    def told_to_end():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(1)

    for main, code in ((lambda: 1, 1), (lambda: None, None), (wrong, "error: nothing there"), (stopped, 130), (told_to_end, 143)):
        with pytest.raises(SystemExit) as ended:
            run_script(main)
        assert ended.value.code == code
    assert capsys.readouterr().err == 2 * "\nStopped. The same command resumes.\n"


def test_each_job_is_yielded_with_its_status_and_keeps_its_own_log(tmp_path):
    jobs = [job(tmp_path, "fine", "print('hello')"), job(tmp_path, "broken", "raise SystemExit(3)")]
    assert {one.folder.name: status for one, status in run_all(jobs, 2)} == {"fine": 0, "broken": 3}
    assert tail(jobs[0]) == "hello"
    assert tail(jobs[1]) == ""


def test_one_at_a_time_runs_in_the_order_given(tmp_path):
    code = f"open({str(tmp_path / 'order')!r}, 'a').write('{{}}')"
    list(run_all([job(tmp_path, name, code.format(name)) for name in "cab"], 1))
    assert (tmp_path / "order").read_text("utf-8") == "cab"


def test_a_job_has_one_thread(tmp_path):
    one = job(tmp_path, "threads", "import os; print(os.environ['OMP_NUM_THREADS'], os.environ['MKL_NUM_THREADS'])")
    list(run_all([one], 1))
    assert tail(one) == "1 1"


def test_a_log_holds_all_starts_and_the_tail_that_of_the_last(tmp_path):
    one = job(tmp_path, "again", f"print('time', len(open({str(tmp_path / 'again/log.txt')!r}).readlines()))")
    for _ in range(2):
        list(run_all([one], 1))
    assert one.log.read_text("utf-8").count("$ ") == 2
    assert tail(one) == "time 3"
    assert tail(job(tmp_path, "again", "print(1)")) == "\n".join(one.log.read_text("utf-8").splitlines())


def test_closing_ends_what_is_under_way(tmp_path):
    with closing(run_all([sleeper(tmp_path), job(tmp_path, "short", "pass")], 2)) as ended:
        assert next(ended)[0].folder.name == "short"
        number = wait_for(tmp_path / "pid")
    with pytest.raises(ProcessLookupError):
        os.kill(number, 0)


def test_two_starts_of_one_job_do_not_write_into_one_folder(tmp_path):
    pytest.importorskip("fcntl")
    with closing(run_all([sleeper(tmp_path), job(tmp_path, "short", "pass")], 2)) as ended:
        next(ended)
        with pytest.raises(BlockingIOError, match=r"another process is at work in .*sleeper"):
            list(run_all([sleeper(tmp_path)], 1))


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGINT"])
def test_signals_are_interrupts(name):
    if not hasattr(signal, name):
        pytest.skip(f"there is no {name} here")
    number = getattr(signal, name)
    if name == "SIGINT":  # A shell's background jobs begin with Ctrl-C ignored.
        signal.signal(number, signal.default_int_handler)
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt), ended_by_signals():
        signal.raise_signal(number)
    assert signal.getsignal(number) == before


def sleeper(folder):
    code = f"import os, time; open({str(folder / 'pid')!r}, 'w').write(str(os.getpid()) + '.'); time.sleep(1000)"
    return job(folder, "sleeper", code)


def wait_for(path):
    while not (path.exists() and path.read_text("utf-8").endswith(".")):
        time.sleep(0.01)
    return int(path.read_text("utf-8")[:-1])
