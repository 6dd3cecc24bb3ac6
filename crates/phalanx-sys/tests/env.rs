//! Removal from the environment, in a process with a single thread: hence no test harness.

fn main() {
    assert!(std::env::var_os("CARGO_MANIFEST_DIR").is_some());
    let kept = std::env::var_os("PATH");
    let removed = phalanx_sys::env::remove(&["CARGO_MANIFEST_DIR", "PHALANX_NEVER_SET", "", "a=b"]);
    assert_eq!(removed, Ok(()));
    assert!(std::env::var_os("CARGO_MANIFEST_DIR").is_none());
    assert_eq!(std::env::var_os("PATH"), kept);
}
