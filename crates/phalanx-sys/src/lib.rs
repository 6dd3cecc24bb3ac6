//! The system calls of phalanx behind safe functions.
