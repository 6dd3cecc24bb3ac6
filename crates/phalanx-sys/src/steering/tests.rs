#[cfg(feature = "kernel")]
mod interpreter;
#[cfg(feature = "kernel")]
mod program;

use super::*;

#[test]
fn kernel_versions_are_compared_as_numbers() {
    assert_eq!(version("6.1.0-18-amd64"), Some((6, 1)));
    assert_eq!(version("5.14.0"), Some((5, 14)));
    assert!(version("5.9.1") < Some(OLDEST));
    assert_eq!(version("strange"), None);
}

#[test]
fn what_is_missing_is_named() {
    let both = ["CAP_BPF", "CAP_PERFMON"];
    assert_eq!(missing_capabilities(0), both);
    assert_eq!(missing_capabilities(1 << 12), both);
    assert_eq!(missing_capabilities(1 << 39), both[1..]);
    assert_eq!(missing_capabilities(1 << 38), both[..1]);
    assert!(missing_capabilities(1 << 21).is_empty());
    assert!(missing_capabilities(1 << 39 | 1 << 38).is_empty());
    let refused = || SteeringError::LoadProgram {
        source: std::io::Error::from_raw_os_error(libc::EFAULT),
        verdict: Some("too complex".to_owned()),
    };
    let told = |missing: &[&'static str]| {
        let (missing, source) = (missing.to_vec(), refused());
        Unavailable::NoPrivilege { missing, source }.to_string()
    };
    let text = told(&both);
    assert!(text.contains("CAP_BPF and CAP_PERFMON"), "{text}");
    assert!(text.contains("(too complex): Bad address"), "{text}");
    let text = Unavailable::Refused(refused()).to_string();
    assert!(text.contains("too complex"), "{text}");
}

#[test]
fn the_verifiers_last_words_are_found() {
    let log = b"0: r1 = r2\nR2 !read_ok\nprocessed 1 insns\n\0\0";
    assert_eq!(last_words(log).as_deref(), Some("R2 !read_ok"));
    assert_eq!(last_words(&[0; 8]), None);
}

#[cfg(feature = "kernel")]
#[test]
fn the_object_has_what_the_loader_expects() {
    let object = Object::read().unwrap();
    let size = |name| usize::try_from(object.map(name).unwrap().value_size).unwrap();
    assert_eq!(size("group"), memory::SIZE_BYTES);
    assert_eq!(size("board"), scoreboard::SIZE_BYTES);
    assert_eq!(object.map("slots").unwrap().max_entries, POSITIONS_MAX + 1);
    let linked = object.link(&[("slots", 3), ("group", 4), ("board", 5)]);
    assert!(linked.unwrap().instructions.len() > 100);
}

#[test]
fn a_listener_is_steered_by_a_program_that_was_ready() {
    use std::os::fd::AsFd;

    let Ok(steering) = Steering::ready() else {
        eprintln!("NOT RUN: dispatch in the kernel");
        return;
    };
    assert_eq!(steering.spare().len(), SPARE);
    let address = "127.0.0.1:0".parse().unwrap();
    let slots =
        crate::socket::bind_slots(address, 1, &crate::socket::TcpOptions::default()).unwrap();
    let _group = steering.attach(slots[0].as_fd()).unwrap();
    assert_eq!(
        steering.spare().len(),
        SPARE - 1,
        "the verifier was not asked"
    );
    steering.prepare().unwrap();
    assert_eq!(steering.spare().len(), SPARE);
}
