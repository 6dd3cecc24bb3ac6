//! What the primary holds of the operating system for its workers: the ends of channels, and listening sockets with
//! their group's program. Nothing here decides who gets a connection.

pub(in crate::primary) mod channel;
pub(in crate::primary) mod listening;
pub(in crate::primary) mod outgoing;
pub(in crate::primary) mod slots;
pub(in crate::primary) mod splice;
