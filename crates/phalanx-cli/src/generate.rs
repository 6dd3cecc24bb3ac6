//! Shell completions, man pages and the schema of the file, from the definitions of the command line.

use std::fs;
use std::path::Path;

use clap::CommandFactory;

use crate::args::{Cli, Generated};
use crate::report::{self, Failure, Outcome};
use phalanx_control::exit::Exit;

pub(crate) fn generate(what: Generated) -> Outcome {
    match what {
        Generated::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "phalanx", &mut script);
            report::print(&String::from_utf8_lossy(&script))
        }
        Generated::Schema => report::print(&crate::config::schema()),
        Generated::Keys => report::print(&crate::config::page()),
        Generated::Man { directory } => man_pages(&directory).map_err(|error| {
            let what = format!("cannot write man pages to {}", directory.display());
            Failure::caused(Exit::CannotCreate, &what, &error)
        }),
    }
}

fn man_pages(directory: &Path) -> std::io::Result<()> {
    fs::create_dir_all(directory)?;
    clap_mangen::generate_to(Cli::command(), directory)
}
