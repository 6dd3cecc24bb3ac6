//! What a choice in the kernel costs, as the kernel measures it (`kernel.bpf_stats_enabled`).
//!
//! Not a test of right or wrong, so it runs when asked only:
//! `cargo test --release -p phalanx-sys --test steering_cost -- --ignored --nocapture`
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a measurement that cannot be made has failed, and its result is to be seen"
)]

mod support {
    pub(crate) mod cluster;
}

use std::fs;
use std::net::TcpStream;
use std::os::fd::AsFd;

use phalanx_core::policy::PolicyName;
use phalanx_sys::socket::accept;
use rustix::process::{Resource, getrlimit, setrlimit};
use support::cluster::Cluster;

const STATS: &str = "/proc/sys/kernel/bpf_stats_enabled";

#[test]
#[ignore = "a measurement; changes a sysctl while it runs"]
fn what_a_choice_costs() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();
    let before = fs::read_to_string(STATS).unwrap();
    fs::write(STATS, "1").unwrap();
    println!("ns per connection, by number of positions");
    println!("{:<18}{:>8}{:>8}{:>8}{:>8}", "", 2, 16, 64, 256);
    for policy in PolicyName::ALL {
        let costs = [2, 16, 64, 256].map(|count| cost(count, policy));
        let Some([two, some, many, most]) = all(costs) else {
            return;
        };
        println!("{policy:<18}{two:>8}{some:>8}{many:>8}{most:>8}");
    }
    fs::write(STATS, before).unwrap();
}

fn all(costs: [Option<u64>; 4]) -> Option<[u64; 4]> {
    let [one, two, three, four] = costs;
    Some([one?, two?, three?, four?])
}

fn cost(count: u32, policy: PolicyName) -> Option<u64> {
    let cluster = Cluster::start(count, policy, "")?;
    connect(&cluster, 500);
    let (time, runs) = stats();
    connect(&cluster, 4_000);
    let (later, more) = stats();
    Some((later - time) / (more - runs))
}

fn connect(cluster: &Cluster, times: u32) {
    for time in 0..times {
        drop(TcpStream::connect(cluster.address).unwrap());
        if time % 100 == 0 {
            for slot in cluster.slots.values() {
                while accept(slot.as_fd()).is_ok() {}
            }
        }
    }
}

/// Time in ns and runs of the only program that this process has.
fn stats() -> (u64, u64) {
    for entry in fs::read_dir("/proc/self/fdinfo").unwrap() {
        let text = fs::read_to_string(entry.unwrap().path()).unwrap_or_default();
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name))?;
            line.trim().parse::<u64>().ok()
        };
        if let (Some(time), Some(runs)) = (field("run_time_ns:"), field("run_cnt:")) {
            return (time, runs);
        }
    }
    panic!("no program");
}
