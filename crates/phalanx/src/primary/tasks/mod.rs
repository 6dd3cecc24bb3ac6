//! What waits: for lines of output, for the ends of processes, for what `/proc` shows. A task decides nothing.

pub(in crate::primary) mod evidence;
pub(in crate::primary) mod last_lines;
pub(in crate::primary) mod listen_pid;
pub(in crate::primary) mod output;
pub(in crate::primary) mod trees;
