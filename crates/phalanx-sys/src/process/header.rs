//! The first line of a file that is to be executed: whether execve(2) can make something of it.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// As much as the kernel reads of a first line.
const HEADER_BYTES: u64 = 256;

/// Refuses a script whose interpreter is not there, and a text that names none: execve(2) would, too late and in few words.
/// What cannot be read, the kernel may still execute.
pub(super) fn check(path: &Path) -> io::Result<()> {
    let mut header = Vec::new();
    let read = File::open(path).and_then(|file| file.take(HEADER_BYTES).read_to_end(&mut header));
    match read {
        Ok(_) => fault(&header).map_or(Ok(()), |fault| Err(io::Error::other(fault))),
        Err(_) => Ok(()),
    }
}

fn fault(header: &[u8]) -> Option<String> {
    if let Some(line) = header.strip_prefix(b"#!") {
        let line = line.split(|byte| *byte == b'\n').next()?;
        // A carriage return belongs to the name, as for the kernel.
        let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t');
        let interpreter = line.split(is_blank).find(|word| !word.is_empty())?;
        let path = Path::new(OsStr::from_bytes(interpreter));
        let is_missing = path.is_absolute() && !path.exists();
        return is_missing.then(|| {
            let shown = String::from_utf8_lossy(interpreter).replace('\r', "\\r");
            format!("its first line names the interpreter {shown}, which is not there")
        });
    }
    // Binary formats have a NUL byte near their start; binfmt_misc knows more of them than we do.
    let is_text = header.len() > 1 && std::str::from_utf8(header).is_ok() && !header.contains(&0);
    is_text.then(|| {
        "it is a text without a first line like #!/usr/bin/env python3; add one, or name its interpreter before it"
            .to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_needs_an_interpreter_that_is_there() {
        for header in [
            &b"#!/bin/sh\necho"[..],
            b"#! /bin/sh -e\n",
            b"\x7fELF\x02\0",
            b"",
            b"#!sh\n",
        ] {
            assert_eq!(fault(header), None, "{header:?}");
        }
        for (header, part) in [
            (&b"#!/no/such -x\n"[..], "interpreter /no/such,"),
            (b"#!/bin/sh\r\necho", "/bin/sh\\r"),
            (b"echo hi\n", "without a first line"),
        ] {
            let told = fault(header).unwrap();
            assert!(told.contains(part), "{told}");
        }
    }
}
