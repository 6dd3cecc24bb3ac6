//! Control groups around real processes.
#![allow(clippy::unwrap_used, reason = "this whole file is a test")]

use std::sync::Arc;

use phalanx_sys::cgroup::{Cgroup, Root};
use phalanx_sys::process::{Process, SpawnPlan, living_in, spawn, wait_ended};
use phalanx_testkit::{LIMIT, report_missing, wait};

/// A group of this process's; says so where there can be none.
fn root(name: &str) -> Option<Root> {
    let made = Root::make(&format!("test-{name}-{}", std::process::id()));
    made.map_err(|reason| report_missing(&reason.to_string()))
        .ok()
}

fn start_in(cgroup: &Cgroup, script: &str) -> Process {
    let mut plan = SpawnPlan::new("/bin/sh".into());
    plan.args = vec!["sh".into(), "-c".into(), script.into()];
    plan.env = vec![("PATH".into(), "/usr/bin:/bin".into())];
    plan.cgroup = Some(Arc::new(cgroup.open().unwrap()));
    spawn(plan).unwrap()
}

#[test]
fn what_a_process_starts_is_in_its_group_and_is_killed_with_it() {
    let Some(root) = root("kill") else { return };
    let cgroup = root.child("one".to_owned()).unwrap();
    let mut shell = start_in(&cgroup, "setsid env -i sleep 1000 & exec sleep 1000");
    wait::eventually(LIMIT, "both", || {
        (living_in(&cgroup).len() == 2).then_some(())
    });
    let all = living_in(root.group());
    assert!(all.iter().any(|member| member.pid == shell.pid()));
    assert!(cgroup.is_populated().unwrap() && cgroup.remove().is_err());
    cgroup.kill().unwrap();
    for member in all {
        if let Some(pidfd) = member.open().unwrap() {
            assert!(wait_ended(&pidfd, LIMIT), "{member:?}");
        }
    }
    // What has ended and was not reaped holds nothing up.
    wait::eventually(LIMIT, "an empty group", || {
        (!cgroup.is_populated().unwrap()).then_some(())
    });
    root.group().remove().unwrap();
    assert!(cgroup.open().is_err() && cgroup.pids().is_empty());
    shell.try_reap().unwrap();
}

#[test]
fn a_process_begins_elsewhere_when_its_group_is_gone() {
    let Some(root) = root("gone") else { return };
    let cgroup = root.child("one".to_owned()).unwrap();
    let mut plan = SpawnPlan::new("/bin/true".into());
    plan.cgroup = Some(Arc::new(cgroup.open().unwrap()));
    root.group().remove().unwrap();
    let mut process = spawn(plan).unwrap();
    assert!(wait_ended(&process, LIMIT));
    process.try_reap().unwrap();
}

#[test]
fn groups_that_nobody_holds_are_swept_and_others_stay() {
    let Some(first) = root("first") else { return };
    first.child("one".to_owned()).unwrap();
    let second = root("second").unwrap();
    assert!(first.path().exists());
    let left = first.path().to_owned();
    drop(first);
    // Another process that sweeps, or is forked just now, may hold it for a moment.
    wait::eventually(LIMIT, "the group that nobody holds is swept", || {
        let third = root("third").unwrap();
        third.group().remove().unwrap();
        (!left.exists()).then_some(())
    });
    assert!(second.path().exists());
    second.group().remove().unwrap();
}
