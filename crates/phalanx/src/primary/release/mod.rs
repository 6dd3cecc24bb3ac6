//! What a generation runs, and how a process of it is started: nothing here knows of workers that live.

pub(in crate::primary) mod directory;
pub(in crate::primary) mod inherited_fds;
pub(in crate::primary) mod launch;
pub(crate) mod metrics_directory;
pub(crate) mod node_line;
pub(in crate::primary) mod pinned_release;
pub(crate) mod preload;
pub(in crate::primary) mod private;
