//! Bodies of requests to the control socket.
#![no_main]

use phalanx_control::api::{ChangePolicy, Recycle, Reload, Scale, SendMessage, Stop};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(reload) = serde_json::from_slice::<Reload>(bytes) {
        drop(reload.plan());
    }
    if let Ok(recycle) = serde_json::from_slice::<Recycle>(bytes) {
        drop(recycle.targets());
    }
    drop(serde_json::from_slice::<Scale>(bytes));
    drop(serde_json::from_slice::<ChangePolicy>(bytes));
    drop(serde_json::from_slice::<Stop>(bytes));
    drop(serde_json::from_slice::<SendMessage>(bytes));
});
