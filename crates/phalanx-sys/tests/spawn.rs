//! What a new process inherits, and what is left when it could not be started.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot be set up has failed"
)]

mod support;

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

use phalanx_sys::identity::is_root;
use phalanx_sys::process::{ExitStatus, FdMapping, SpawnError, SpawnPlan, spawn};
use rustix::io::{FdFlags, fcntl_setfd};
use support::{end_of, pipe, read_all, run, shell};

/// The descriptors that a shell with these mappings has, but for the standard ones. The shell
/// must wait for the `ls`, or it would become the `ls`, which opens a directory.
fn descriptors(fds: Vec<FdMapping>) -> BTreeMap<i32, String> {
    let mut plan = shell("ls -l /proc/$$/fd; exit 0");
    plan.fds = fds;
    let (output, status) = run(plan);
    assert_eq!(status, ExitStatus::Code(0));
    let lines = output.lines().filter_map(|line| {
        let (left, target) = line.split_once(" -> ")?;
        let (_, number) = left.rsplit_once(' ')?;
        Some((number.parse().unwrap(), target.to_owned()))
    });
    lines.filter(|(number, _)| *number > 2).collect()
}

/// An open file of a new directory, and the path that `/proc` shows for it.
fn file(dir: &tempfile::TempDir, name: &str) -> (Arc<OwnedFd>, String) {
    let path = dir.path().canonicalize().unwrap().join(name);
    let file = File::create(&path).unwrap();
    (Arc::new(file.into()), path.to_str().unwrap().to_owned())
}

#[test]
fn exactly_the_planned_descriptors_arrive() {
    let dir = tempfile::tempdir().unwrap();
    let (a, path_a) = file(&dir, "a");
    let (b, path_b) = file(&dir, "b");
    let seen = descriptors(vec![
        FdMapping::shared(a, 3),
        FdMapping::shared(b, 200),
        FdMapping::null(7),
    ]);
    let expected = [(3, path_a), (7, "/dev/null".to_owned()), (200, path_b)];
    assert_eq!(seen, BTreeMap::from(expected));
}

#[test]
fn inherited_descriptors_without_a_plan_are_closed() {
    let dir = tempfile::tempdir().unwrap();
    let (leaky, path) = file(&dir, "leaky");
    fcntl_setfd(&leaky, FdFlags::empty()).unwrap();
    assert_eq!(descriptors(vec![]), BTreeMap::new());
    let number = leaky.as_raw_fd();
    let seen = descriptors(vec![FdMapping::inherit(number, 9)]);
    assert_eq!(seen, BTreeMap::from([(9, path)]));
}

#[test]
fn sources_and_targets_may_overlap() {
    let dir = tempfile::tempdir().unwrap();
    let files: Vec<_> = ["a", "b", "c"].map(|name| file(&dir, name)).into();
    // Every target is the number of another one's source: a cycle.
    let numbers: Vec<_> = files.iter().map(|(fd, _)| fd.as_raw_fd()).collect();
    let mut mappings = Vec::new();
    let mut expected = BTreeMap::new();
    for (index, (fd, path)) in files.iter().enumerate() {
        let target = numbers[(index + 1) % numbers.len()];
        mappings.push(FdMapping::shared(Arc::clone(fd), target));
        expected.insert(target, path.clone());
    }
    assert_eq!(descriptors(mappings), expected);
}

#[test]
fn a_descriptor_can_keep_its_number() {
    let dir = tempfile::tempdir().unwrap();
    let (fd, path) = file(&dir, "same");
    let number = fd.as_raw_fd();
    let seen = descriptors(vec![FdMapping::shared(fd, number)]);
    assert_eq!(seen, BTreeMap::from([(number, path)]));
}

#[test]
fn an_owned_descriptor_is_closed_here() {
    let (reader, writer) = pipe();
    let mut plan = shell("echo through >&5");
    plan.fds.push(FdMapping::owned(writer, 5));
    let mut process = spawn(plan).unwrap();
    // The end comes only if nobody but the worker had the writing end.
    assert_eq!(read_all(&reader), "through\n");
    assert_eq!(end_of(&mut process), ExitStatus::Code(0));
}

#[test]
fn arguments_environment_and_directory_are_exact() {
    let dir = tempfile::tempdir().unwrap();
    let mut plan = SpawnPlan::new(PathBuf::from("/usr/bin/env"));
    plan.args = vec!["env".into()];
    plan.env = vec![
        ("ONE".into(), "1".into()),
        ("EMPTY".into(), "".into()),
        ("WITH".into(), "a=b c".into()),
    ];
    let (output, _) = run(plan);
    assert_eq!(output, "ONE=1\nEMPTY=\nWITH=a=b c\n");

    let mut plan = shell("pwd -P; echo \"$0|$1|$2\"");
    plan.args.extend(["zero", "a b", ""].map(Into::into));
    plan.cwd = Some(dir.path().to_owned());
    let (output, _) = run(plan);
    let cwd = dir.path().canonicalize().unwrap();
    assert_eq!(output, format!("{}\nzero|a b|\n", cwd.display()));
}

#[test]
fn a_missing_program_is_reported_and_leaves_nothing() {
    let (reader, writer) = pipe();
    let mut plan = SpawnPlan::new(PathBuf::from("/nonexistent/program"));
    plan.fds.push(FdMapping::owned(writer, 1));
    let error = spawn(plan).unwrap_err();
    let SpawnError::Exec { program, source } = &error else {
        panic!("{error}");
    };
    assert_eq!(program, &PathBuf::from("/nonexistent/program"));
    assert_eq!(source.kind(), std::io::ErrorKind::NotFound);
    assert_eq!(error.to_string(), "cannot execute /nonexistent/program");
    // No process is left that has the writing end.
    assert_eq!(read_all(&reader), "");
}

#[test]
fn a_file_without_permission_is_reported() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data");
    std::fs::write(&path, "").unwrap();
    let error = spawn(SpawnPlan::new(path)).unwrap_err();
    let SpawnError::Exec { source, .. } = error else {
        panic!("{error}");
    };
    assert_eq!(source.kind(), std::io::ErrorKind::PermissionDenied);
}

#[test]
fn a_missing_directory_is_reported_as_such() {
    let mut plan = shell("exit 0");
    plan.cwd = Some(PathBuf::from("/nonexistent"));
    let error = spawn(plan).unwrap_err();
    let SpawnError::Chdir { path, source } = error else {
        panic!("{error}");
    };
    assert_eq!(path, PathBuf::from("/nonexistent"));
    assert_eq!(source.kind(), std::io::ErrorKind::NotFound);
}

#[test]
fn an_open_file_is_executed_in_place_of_the_path() {
    let executable: OwnedFd = File::open("/bin/sh").unwrap().into();
    let mut plan = shell("echo run");
    plan.program = PathBuf::from("/nonexistent/program");
    plan.executable = Some(Arc::new(executable));
    assert_eq!(run(plan), ("run\n".to_owned(), ExitStatus::Code(0)));
}

#[test]
fn user_and_group_are_changed_and_groups_dropped() {
    let mut plan = shell("id -u; id -g; id -G");
    plan.uid = Some(65_534);
    plan.gid = Some(65_533);
    if is_root() {
        let (output, _) = run(plan);
        assert_eq!(output, "65534\n65533\n65533\n");
    } else {
        let error = spawn(plan).unwrap_err();
        assert!(matches!(error, SpawnError::SetGid { gid: 65_533, .. }));
        eprintln!("SKIPPED: becoming another user needs root");
    }
}

#[test]
fn becoming_oneself_needs_no_privilege() {
    let mut plan = shell("id -u");
    plan.uid = Some(phalanx_sys::identity::effective_uid());
    let (output, _) = run(plan);
    assert_eq!(
        output.trim(),
        phalanx_sys::identity::effective_uid().to_string()
    );
}

#[test]
fn a_variable_can_hold_the_number_of_the_new_process() {
    let mut plan = shell("echo \"$LISTEN_PID $$ $OTHER\"");
    plan.own_pid_env = vec!["LISTEN_PID".into(), "OTHER".into()];
    let (output, status) = run(plan);
    assert_eq!(status, ExitStatus::Code(0));
    let numbers: Vec<&str> = output.split_ascii_whitespace().collect();
    assert_eq!(numbers.len(), 3, "{output}");
    assert!(numbers.iter().all(|number| *number == numbers[0]));
    assert!(!numbers[0].starts_with('0'), "{output}");
}
