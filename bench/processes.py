"""Processes under test: who belongs to a tree, what CPU time and memory it has used.

CPU time is utime + stime of every process of the tree, and cutime + cstime of what it has reaped (proc(5)). Where the
kernel has `/proc/PID/task/TID/schedstat`, the living are read from there: the same time in nanoseconds instead of ticks of 10 ms.
"""

import os
import subprocess

TICK = os.sysconf("SC_CLK_TCK")


def tree(pid):
    """The process and its descendants, itself first."""
    pids, todo = [], [pid]
    while todo:
        current = todo.pop()
        pids.append(current)
        try:
            for task in os.listdir(f"/proc/{current}/task"):
                with open(f"/proc/{current}/task/{task}/children") as children:
                    todo.extend(int(child) for child in children.read().split())
        except OSError:
            pass
    return pids


def _stat_ticks(pid):
    """(utime + stime, cutime + cstime) in ticks."""
    with open(f"/proc/{pid}/stat") as stat:
        fields = stat.read().rsplit(") ", 1)[1].split()
    return int(fields[11]) + int(fields[12]), int(fields[13]) + int(fields[14])


def _living_seconds(pid, ticks):
    try:
        nanoseconds = 0
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/schedstat") as schedstat:
                nanoseconds += int(schedstat.read().split()[0])
        return nanoseconds / 1e9
    except OSError:
        return ticks / TICK


def cpu_seconds(pid):
    """CPU time of one process, its threads and those of its descendants that it has reaped."""
    try:
        own, reaped = _stat_ticks(pid)
    except OSError:
        return 0.0
    return _living_seconds(pid, own) + reaped / TICK


def cpu_of_tree(pid):
    """CPU time in seconds of the whole tree, and of its root alone."""
    each = [cpu_seconds(one) for one in tree(pid)]
    return sum(each), each[0]


def memory_of_tree(pid):
    """Proportional set size of the whole tree, in bytes: what is shared counts once."""
    total = 0
    for one in tree(pid):
        try:
            with open(f"/proc/{one}/smaps_rollup") as rollup:
                lines = rollup.read().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
    return total


def put_first(pid, nice):
    """Gives a process precedence over the machine's other work; what it starts inherits it (root).

    Where sessions are scheduled as groups (sched(7), autogroup) the group's own nice value counts instead.
    """
    os.setpriority(os.PRIO_PROCESS, pid, nice)
    try:
        with open(f"/proc/{pid}/autogroup", "w") as autogroup:
            autogroup.write(str(nice))
    except OSError:
        pass


def end(process, seconds=60):
    """Has a process of ours end by SIGTERM, and by SIGKILL if it has not after so long."""
    process.terminate()
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
