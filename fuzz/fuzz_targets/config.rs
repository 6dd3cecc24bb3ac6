//! Texts beside the configuration file: environment files, and values with variables.
#![no_main]

use std::path::Path;

libfuzzer_sys::fuzz_target!(|text: &str| {
    drop(phalanx_config::dotenv::parse(Path::new("x"), text));
    if let Ok(expanded) = phalanx_config::expand::expand(text, &|_| None) {
        assert!(expanded.len() <= text.len());
    }
});
