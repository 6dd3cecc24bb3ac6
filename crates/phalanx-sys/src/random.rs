//! Names that nobody can guess.

use std::fs::File;
use std::io::{self, Read};

/// 128 random bits in hexadecimal (random(4)).
///
/// # Errors
/// Those of opening and reading `/dev/urandom`.
pub fn name() -> io::Result<String> {
    let mut random = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut random)?;
    Ok(format!("{:032x}", u128::from_ne_bytes(random)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_names_are_alike() {
        assert_eq!(name().unwrap().len(), 32);
        assert_ne!(name().unwrap(), name().unwrap());
    }
}
