//! The client of a connection, as a number that its address determines.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::rng::SplitMix64;

/// A hash of the client's address without its port; equal for IPv4 and for the same address mapped
/// into IPv6, so that a dual-stack listener knows its clients by either.
///
/// The kernel program computes the same number from the packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ClientHash(pub u64);

impl ClientHash {
    /// Where there is no address: a Unix socket's client, or one that nobody asked for.
    pub const UNKNOWN: Self = Self(0);
}

impl From<IpAddr> for ClientHash {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => address.into(),
            IpAddr::V6(address) => address.into(),
        }
    }
}

impl From<Ipv4Addr> for ClientHash {
    fn from(address: Ipv4Addr) -> Self {
        address.to_ipv6_mapped().into()
    }
}

impl From<Ipv6Addr> for ClientHash {
    fn from(address: Ipv6Addr) -> Self {
        let half = |bits: u128| u64::try_from(bits & u128::from(u64::MAX)).unwrap_or(0);
        let bits = u128::from(address);
        let (high, low) = (half(bits >> 64), half(bits));
        Self(mixed(mixed(high) ^ low))
    }
}

/// Every bit of the result depends on every bit of `number`.
fn mixed(number: u64) -> u64 {
    SplitMix64::new(number).next_u64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_the_same_client_in_both_notations() {
        let plain: IpAddr = "192.0.2.7".parse().unwrap();
        let mapped: IpAddr = "::ffff:192.0.2.7".parse().unwrap();
        assert_eq!(ClientHash::from(plain), ClientHash::from(mapped));
        let other: IpAddr = "192.0.2.8".parse().unwrap();
        assert_ne!(ClientHash::from(plain), ClientHash::from(other));
    }

    #[test]
    fn every_half_of_an_ipv6_address_counts() {
        let hash = |text: &str| ClientHash::from(text.parse::<IpAddr>().unwrap());
        assert_ne!(hash("2001:db8::1"), hash("2001:db8::2"));
        assert_ne!(hash("2001:db8:1::1"), hash("2001:db8:2::1"));
        assert_ne!(hash("::1"), hash("0:0:0:1::"));
    }
}
