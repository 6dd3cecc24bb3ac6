//! Processes: starting them with an exact inheritance, signalling and reaping them.
//!
//! [`spawn`] turns a [`SpawnPlan`] into a [`Process`]. Everything is prepared before the fork
//! (`prepare`); the fork itself happens on one thread that never ends (`spawner`), because the
//! kernel delivers the parent-death signal when the forking *thread* ends (`PR_SET_PDEATHSIG`,
//! prctl(2)); the new process makes async-signal-safe calls only (`child`) and reports the step
//! that failed through a close-on-exec pipe.
//!
//! A [`Process`] is a pidfd and cannot be mistaken for another one, even after its number has
//! been given away again. [`reap_strangers`] is for a primary that is PID 1.
//!
//! Signals touched: none in this process. The spawner thread has all of them blocked.

mod activity;
mod child;
mod error;
mod family;
mod header;
mod pid;
mod plan;
mod prepare;
mod reap;
mod running;
mod spawner;
mod tree;

pub use activity::{
    Activity, Turns, activity, catches, is_in_frozen_group, portrait, turns, waits_for_inspector,
};
pub use error::SpawnError;
pub use family::{acts_for, ancestors_among, descends_from, family_of, heirs_of, is_busy, newest};
pub use pid::{Pid, parent_pid};
pub use plan::{FdMapping, FdSource, SpawnPlan, resolve_program};
pub use reap::reap_strangers;
pub use running::{ExitStatus, Process};
pub use spawner::spawn;
pub use tree::{
    Among, Member, Tree, adopt_orphans, adopted, descendants_of, inherited_pidfd, living_in,
    own_pidfd, set_name, wait_ended,
};
