import os
import signal
import sys
import time
from contextlib import closing

import pytest

from benchmarks.processes import Job, ended_by_signals, run_all, tail


def job(folder, name, code):
    return Job(name, (sys.executable, "-c", code), folder / name / "log.txt")


def test_each_job_is_yielded_with_its_status_and_keeps_its_own_log(tmp_path):
    jobs = [job(tmp_path, "fine", "print('hello')"), job(tmp_path, "broken", "raise SystemExit(3)")]
    assert {one.name: status for one, status in run_all(jobs, 2)} == {"fine": 0, "broken": 3}
    assert tail(jobs[0]) == "hello"
    assert tail(jobs[1]) == ""


def test_one_at_a_time_runs_in_the_order_given(tmp_path):
    code = f"open({str(tmp_path / 'order')!r}, 'a').write('{{}}')"
    list(run_all([job(tmp_path, name, code.format(name)) for name in "cab"], 1))
    assert (tmp_path / "order").read_text() == "cab"


def test_a_job_has_one_thread(tmp_path):
    one = job(tmp_path, "threads", "import os; print(os.environ['OMP_NUM_THREADS'], os.environ['MKL_NUM_THREADS'])")
    list(run_all([one], 1))
    assert tail(one) == "1 1"


def test_a_log_holds_all_starts_and_the_tail_that_of_the_last(tmp_path):
    one = job(tmp_path, "again", f"print('time', len(open({str(tmp_path / 'again/log.txt')!r}).readlines()))")
    for _ in range(2):
        list(run_all([one], 1))
    assert one.log.read_text().count("$ ") == 2
    assert tail(one) == "time 3"
    assert tail(job(tmp_path, "again", "print(1)")) == "\n".join(one.log.read_text().splitlines())


def test_closing_ends_what_is_under_way(tmp_path):
    with closing(run_all([sleeper(tmp_path), job(tmp_path, "short", "pass")], 2)) as ended:
        assert next(ended)[0].name == "short"
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
    while not (path.exists() and path.read_text().endswith(".")):
        time.sleep(0.01)
    return int(path.read_text()[:-1])
