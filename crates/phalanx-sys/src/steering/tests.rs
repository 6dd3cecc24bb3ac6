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
    assert_eq!(missing_capabilities(0), ["CAP_BPF", "CAP_NET_ADMIN"]);
    assert_eq!(missing_capabilities(1 << 39), ["CAP_NET_ADMIN"]);
    assert_eq!(missing_capabilities(1 << 21), ["CAP_NET_ADMIN"]);
    assert!(missing_capabilities(1 << 21 | 1 << 12).is_empty());
    let missing = vec!["CAP_BPF", "CAP_NET_ADMIN"];
    let text = Unavailable::NoPrivilege { missing }.to_string();
    assert!(text.contains("CAP_BPF and CAP_NET_ADMIN"), "{text}");
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
