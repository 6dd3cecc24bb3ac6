//! What waits: for connections, for what comes on channels, for calls that are intercepted, for the time, for lines of output, for the ends of processes, for what `/proc` shows. A task
//! decides nothing. It knows the mailbox, and not the state.

pub(in crate::primary) mod accept;
pub(in crate::primary) mod channel;
pub(in crate::primary) mod drain;
pub(in crate::primary) mod evidence;
pub(in crate::primary) mod exit;
pub(in crate::primary) mod hang;
pub(in crate::primary) mod intercept;
pub(in crate::primary) mod last_lines;
pub(in crate::primary) mod listen_pid;
pub(in crate::primary) mod observe;
pub(in crate::primary) mod output;
pub(in crate::primary) mod probe;
pub(in crate::primary) mod probing;
pub(in crate::primary) mod program;
pub(in crate::primary) mod sd_notify;
pub(in crate::primary) mod splice;
pub(in crate::primary) mod timer;
pub(in crate::primary) mod trees;
pub(in crate::primary) mod trial;
pub(in crate::primary) mod unseen;
