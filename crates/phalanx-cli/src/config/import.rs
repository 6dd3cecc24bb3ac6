//! `phalanx import`: another tool's file as one of ours.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::{Command, Stdio};

use phalanx_config::import::{Imported, gunicorn, pm2, procfile, puma};
use serde_json::Value;

use super::flags::Flags;
use super::text_of;
use crate::args::ImportArgs;
use crate::report::{self, Failure, Outcome};
use phalanx_control::exit::Exit;

/// Prints what a module exports. It may be one of either kind, and may export a function or a promise.
const PRINT_EXPORT: &str = "import(require('url').pathToFileURL(process.argv[1])).then(async (all) => { \
    let one = 'default' in all ? all.default : all; if (typeof one === 'function') one = one(); \
    process.stdout.write('\\n' + JSON.stringify(await one) + '\\n'); }).catch((error) => { console.error(String(error)); process.exit(1); })";

pub(crate) fn import(args: &ImportArgs) -> Outcome {
    let keys = Flags::new().keys();
    let path = args.file.as_path();
    let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
    let extension = path.extension().and_then(OsStr::to_str);
    let shown = path.display().to_string();
    let imported = match extension {
        _ if name.starts_with("Procfile") => procfile::import(&text_of(path)?, &keys),
        Some("js" | "cjs" | "mjs") => {
            let node = args.node.clone().unwrap_or_else(|| "node".into());
            ecosystem(&exported(path, node.as_os_str())?, path, &keys)?
        }
        Some("json") => {
            let text = text_of(path)?;
            let value = serde_json::from_str(&text).map_err(|error| {
                Failure::caused(Exit::Config, &format!("{shown} is no JSON"), &error)
            })?;
            ecosystem(&value, path, &keys)?
        }
        Some("py") => gunicorn::import(&shown, &text_of(path)?, &keys),
        Some("rb") => puma::import(&shown, &text_of(path)?, &keys),
        _ => {
            let reason = format!(
                "{shown}: it is none of ecosystem.config.js (or .cjs, .mjs, .json), Procfile, gunicorn.conf.py and puma.rb"
            );
            return Err(Failure::new(Exit::Usage, reason));
        }
    };
    if imported.apps() == 0 {
        return Err(Failure::new(
            Exit::Config,
            format!("{shown}: there is no app in it"),
        ));
    }
    report::print(&imported.to_toml())?;
    if imported.remarks() > 0 {
        let left = imported.remarks();
        report::show_progress(&format!(
            "{shown}: not taken over, with the reasons in comments: {left}"
        ));
    }
    Ok(())
}

fn ecosystem(exported: &Value, path: &Path, keys: &phalanx_config::Keys) -> Outcome<Imported> {
    pm2::import(exported, keys)
        .map_err(|reason| Failure::new(Exit::Config, format!("{}: {reason}", path.display())))
}

/// Runs Node once, to read what the file exports.
fn exported(path: &Path, node: &OsStr) -> Outcome<Value> {
    let failed = |reason: &str| {
        let reason = format!("cannot read {} with Node: {reason}", path.display());
        Failure::new(Exit::Failed, reason)
    };
    let file = path
        .canonicalize()
        .map_err(|error| failed(&error.to_string()))?;
    let words: [OsString; 3] = ["-e".into(), PRINT_EXPORT.into(), file.into()];
    let mut command = Command::new(node);
    command.args(words).stdin(Stdio::null());
    let output = command
        .output()
        .map_err(|error| failed(&error.to_string()))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        return Err(failed(stderr.trim()));
    }
    // What the file itself prints comes before.
    let stdout = String::from_utf8_lossy(&output.stdout);
    let last = stdout.trim_end().lines().next_back().unwrap_or_default();
    serde_json::from_str(last).map_err(|_| failed("it exports nothing that can be written as JSON"))
}
