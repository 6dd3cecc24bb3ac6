//! A program with a primary of its own, by Node's `cluster`, that is started with the package registered.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use phalanx_testkit::fixtures::{fixture, root};
use phalanx_testkit::node::NodeBinary;
use phalanx_testkit::{Process, Target, wait};
use rustix::process::Signal;

use super::get;

/// The whole of a test is slow beside others.
pub(crate) const LIMIT: Duration = Duration::from_mins(1);

/// Dispatch and serialization.
pub(crate) const WAYS: [(&str, &str); 3] = [
    ("handoff", "json"),
    ("auto", "json"),
    ("handoff", "advanced"),
];

/// A program that is started with the package registered.
pub(crate) struct Primary {
    pub(crate) process: Process,
    pub(crate) target: Target,
}

pub(crate) fn command(node: &NodeBinary, script: &str, variables: &[(&str, &str)]) -> Command {
    registered(node, ["--require", "register.cjs"], script, variables)
}

/// As [`command`], by `--import`.
pub(crate) fn imported(node: &NodeBinary, script: &str, variables: &[(&str, &str)]) -> Command {
    registered(node, ["--import", "register.mjs"], script, variables)
}

fn registered(
    node: &NodeBinary,
    [option, file]: [&str; 2],
    script: &str,
    variables: &[(&str, &str)],
) -> Command {
    let mut command = node.command();
    let register = root().join("npm/phalanx-cluster").join(file);
    command.arg(option).arg(register).arg(fixture(script));
    command.env("PHALANX_BINARY", env!("CARGO_BIN_EXE_phalanx"));
    command.envs(variables.iter().copied());
    command
}

impl Primary {
    pub(crate) fn start(node: &NodeBinary, variables: &[(&str, &str)]) -> Self {
        Self::start_script(node, "dropin/main.js", variables)
    }

    /// One of the [`WAYS`], with its name.
    pub(crate) fn start_by(
        node: &NodeBinary,
        (dispatch, serialization): (&str, &str),
    ) -> (Self, String) {
        let variables = [
            ("PHALANX_DISPATCH", dispatch),
            ("SERIALIZATION", serialization),
        ];
        let name = format!("Node {}, {dispatch}, {serialization}", node.major);
        (Self::start(node, &variables), name)
    }

    pub(crate) fn start_script(
        node: &NodeBinary,
        script: &str,
        variables: &[(&str, &str)],
    ) -> Self {
        Self::of(Process::start_with_stdin(command(node, script, variables)))
    }

    pub(crate) fn of(process: Process) -> Self {
        let line = process.wait_for_line("listening", LIMIT);
        let address = line.split(' ').nth(2).unwrap();
        let target = Target::Tcp(address.parse().unwrap());
        let primary = Self { process, target };
        primary.wait_for("listening", 2);
        primary
    }

    /// What it has printed and complained so far.
    pub(crate) fn text(&self) -> String {
        let lines = self.process.lines().all();
        lines.into_iter().map(|line| line.text + "\n").collect()
    }

    pub(crate) fn count(&self, part: &str) -> usize {
        let text = self.text();
        text.lines().filter(|line| line.contains(part)).count()
    }

    pub(crate) fn wait_for(&self, part: &str, count: usize) {
        let what = format!("{count} lines with {part:?}");
        wait::eventually(LIMIT, &what, || (self.count(part) >= count).then_some(()));
    }

    /// Who answers how many of so many requests, a connection each.
    pub(crate) fn answers(&self, count: usize) -> BTreeMap<String, usize> {
        let mut answers = BTreeMap::new();
        for _ in 0..count {
            *answers.entry(get(&self.target, "/")).or_default() += 1;
        }
        answers
    }

    /// Restarts all workers, as its program does it.
    pub(crate) fn restart(&self) {
        let before = self.count("restarted");
        self.process.signal(Signal::USR2);
        self.wait_for("restarted", before + 1);
    }

    /// The engine; where the last one was killed, the next as soon as it is there.
    pub(crate) fn engine(&self) -> u32 {
        self.process_of("engine")
    }

    /// The process of this verb, as soon as it is there.
    pub(crate) fn process_of(&self, verb: &str) -> u32 {
        let is_it = |pid: &u32| {
            let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            words.split(|&byte| byte == 0).nth(1) == Some(verb.as_bytes())
        };
        wait::eventually(LIMIT, verb, || {
            self.process.family().into_iter().find(is_it)
        })
    }
}
