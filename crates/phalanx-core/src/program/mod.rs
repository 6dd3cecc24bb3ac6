//! What a command runs in the end, as far as its words tell: Node's options, the shell's and env's simple commands,
//! first lines of scripts, and what apps are called. No file is read here.

pub mod env_file;
pub mod launcher;
pub mod names;
pub mod node;
pub mod node_options;
pub mod words;
