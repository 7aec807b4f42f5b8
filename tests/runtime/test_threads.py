"""How many CPUs there are for a process, as Linux tells it."""

import os
import subprocess
import sys

import pytest
import torch

from ddpm.runtime import threads
from ddpm.runtime.threads import limit_threads, usable_cpus

WAITING = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")


@pytest.fixture
def machine(monkeypatch):
    """A process that is bound to 16 of 64 CPUs."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)


def tell(root, groups, **files):
    """A file system with this /proc/self/cgroup and these files below /sys/fs/cgroup."""
    (root / "proc" / "self").mkdir(parents=True)
    (root / "proc" / "self" / "cgroup").write_text(groups)
    for name, text in files.items():
        path = root / "sys" / "fs" / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return root


@pytest.mark.parametrize(
    ("groups", "files", "cpus"),
    [
        ("0::/\n", {}, 16),
        ("0::/\n", {"cpu.max": "max 100000"}, 16),
        ("0::/\n", {"cpu.max": "200000 100000"}, 2),
        ("0::/\n", {"cpu.max": "250000 100000"}, 3),  # two and a half
        ("0::/\n", {"cpu.max": "50000 100000"}, 1),
        ("0::/\n", {"cpu.max": "6400000 100000"}, 16),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000", "a/cpu.max": "300000 100000"}, 3),
        (
            "0::/a/b\n",
            {"cpu.max": "300000 100000"},
            3,
        ),  # the container sees its own group as the root
        (
            "4:memory:/x\n1:cpu:/\n",
            {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "9"},
            16,
        ),
        (
            "3:cpu,cpuacct:/d\n0::/\n",
            {
                "cpu,cpuacct/d/cpu.cfs_quota_us": "400000",
                "cpu,cpuacct/d/cpu.cfs_period_us": "100000",
            },
            4,
        ),
        ("2:cpuset:/\n1:name=systemd:/\n", {"cpu.max": "100000 100000"}, 16),
        ("0::/\n", {"cpu.max": "what is this"}, 16),
        ("0::/\n", {"cpu.max": "0 0"}, 16),
        ("nonsense\n\n::::\n", {}, 16),
        ("0::/../..\n", {"cpu.max": "200000 100000"}, 2),
    ],
)
def test_the_share_of_a_container_counts(machine, tmp_path, groups, files, cpus):
    assert usable_cpus(tell(tmp_path, groups, **files)) == cpus


def test_a_system_without_control_groups_has_the_cpus_that_it_has(tmp_path, monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 5)
    assert usable_cpus(tmp_path) == 5
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert usable_cpus(tmp_path) == 1


@pytest.fixture
def computing(monkeypatch):
    """PyTorch computes on 8 threads; what it is told to."""
    told = []
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    monkeypatch.setattr(torch, "set_num_threads", told.append)
    for name in threads.GIVEN:
        monkeypatch.delenv(name, raising=False)
    return told


def test_too_many_threads_become_as_many_as_there_are_cpus(computing, monkeypatch, caplog):
    monkeypatch.setattr(threads, "usable_cpus", lambda: 2)
    with caplog.at_level("INFO", "ddpm"):
        limit_threads()
    assert computing == [2]
    assert caplog.messages == ["2 threads instead of 8, since so many CPUs may be used"]


@pytest.mark.parametrize("name", threads.GIVEN)
def test_what_somebody_has_decided_stays(computing, monkeypatch, caplog, name):
    monkeypatch.setattr(threads, "usable_cpus", lambda: 2)
    monkeypatch.setenv(name, "8")
    limit_threads()
    assert computing == []


@pytest.mark.parametrize("cpus", [8, 64])
def test_no_thread_is_added(computing, monkeypatch, caplog, cpus):
    monkeypatch.setattr(threads, "usable_cpus", lambda: cpus)
    with caplog.at_level("INFO", "ddpm"):
        limit_threads()
    assert computing == []
    assert caplog.messages == []


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, "2000"),
        ({"GOMP_SPINCOUNT": "7"}, "7"),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, None),
    ],
)
def test_threads_that_wait_give_way_soon_unless_somebody_has_decided(given, expected):
    environment = {k: v for k, v in os.environ.items() if k not in WAITING} | given
    script = (
        "import os, sys\nfrom ddpm.cli import wait_briefly\n"
        "assert 'torch' not in sys.modules\nwait_briefly()\n"
        "print(os.environ.get('GOMP_SPINCOUNT'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=environment
    )
    assert done.stdout.strip() == str(expected), done.stderr
