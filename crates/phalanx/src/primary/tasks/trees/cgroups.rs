//! The control groups of an app: one for each worker inside of one for all, where they may be made.
//!
//! They tell without a gap what descends from a worker, and kill it in one step. Where there are none, and for what has
//! left its group, the other signs tell (`trees.rs`). They are made where blocking is allowed, when the first is needed.

use std::os::fd::OwnedFd;
use std::sync::OnceLock;

use phalanx_core::ids::WorkerId;
use phalanx_sys::cgroup::{Cgroup, NoCgroup, Root};
use phalanx_sys::process::Pid;

use super::Trees;

/// The group of all, or why there is none; nothing before it was needed.
#[derive(Debug, Default)]
pub(super) struct Cgroups(OnceLock<Result<Root, NoCgroup>>);

/// Where the groups of an app are, as status tells it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct CgroupPlace {
    pub(crate) path: Option<String>,
    pub(crate) absent_because: Option<String>,
}

impl Cgroups {
    fn root(&self, token: &str) -> Option<&Root> {
        let made = self.0.get_or_init(|| {
            let made = Root::make(token);
            match &made {
                Ok(root) => {
                    let path = root.path().display();
                    tracing::debug!(%path, "each worker gets a cgroup");
                }
                Err(reason) => tracing::debug!(%reason, "workers get no cgroups"),
            }
            made
        });
        made.as_ref().ok()
    }
}

/// The group of a worker that is being started. Dropped before the worker is there, it is removed.
#[derive(Debug)]
pub(in crate::primary) struct Making(Option<Cgroup>);

impl Making {
    /// Its directory, for whoever begins in it.
    pub(in crate::primary) fn directory(&self) -> Option<OwnedFd> {
        self.0.as_ref()?.open().ok()
    }

    /// The worker is there. Nothing when it is not in the group: the kernel has refused it.
    pub(in crate::primary) fn of(mut self, pid: Pid) -> Option<Cgroup> {
        // One that has ended already may have left something there.
        let is_in = |cgroup: &Cgroup| {
            cgroup.pids().contains(&pid) || cgroup.is_populated().is_ok_and(|populated| populated)
        };
        if !self.0.as_ref().is_some_and(is_in) {
            return None;
        }
        self.0.take()
    }
}

impl Drop for Making {
    fn drop(&mut self) {
        if let Some(cgroup) = &self.0 {
            remove(cgroup);
        }
    }
}

impl Trees {
    /// The group of all; nothing where there is none. The first call makes it.
    pub(super) fn root(&self) -> Option<&Root> {
        if !self.options().cgroups {
            return None;
        }
        self.cgroups.root(&self.token)
    }

    /// A group for a worker that is about to be started.
    pub(in crate::primary) fn make_cgroup(&self, worker: WorkerId) -> Making {
        let made = self
            .root()
            .map(|root| root.child(format!("worker-{worker}")));
        Making(match made {
            Some(Ok(cgroup)) => Some(cgroup),
            Some(Err(error)) => {
                tracing::debug!(worker = worker.0, %error, "it gets no cgroup");
                None
            }
            None => None,
        })
    }

    /// What is known of the groups; nothing before the first worker was started.
    pub(crate) fn cgroup_place(&self) -> CgroupPlace {
        if !self.options().cgroups {
            return CgroupPlace {
                path: None,
                absent_because: Some("not asked for".to_owned()),
            };
        }
        match self.cgroups.0.get() {
            None => CgroupPlace::default(),
            Some(Ok(root)) => CgroupPlace {
                path: Some(root.path().display().to_string()),
                absent_because: None,
            },
            Some(Err(reason)) => CgroupPlace {
                path: None,
                absent_because: Some(reason.to_string()),
            },
        }
    }
}

/// Removes a group in which nothing lives any more.
pub(super) fn remove(cgroup: &Cgroup) {
    if let Err(error) = cgroup.remove() {
        tracing::debug!(?cgroup, %error, "a cgroup cannot be removed");
    }
}
