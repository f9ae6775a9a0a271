//! `destinationSubnets`: ranges of addresses. Decoded by `crd`, looked at for every connection.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

/// An address, and how many of its first bits count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Subnet {
    address: IpAddr,
    bits: u8,
}

impl Subnet {
    /// `10.0.0.0/8`, or a single address.
    pub fn parse(text: &str) -> Option<Self> {
        let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let address: IpAddr = address.parse().ok()?;
        let all = if address.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            Some(bits) if bits.bytes().all(|b| b.is_ascii_digit()) => bits.parse().ok().filter(|bits| *bits <= all)?,
            Some(_) => return None,
            None => all,
        };
        Some(Self { address, bits })
    }

    /// Whether an address is in it. IPv4 within IPv6 is IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        let wide = |ip: IpAddr| match ip {
            IpAddr::V4(v4) => u128::from(v4.to_bits()) << 96,
            IpAddr::V6(v6) => Ipv6Addr::to_bits(v6),
        };
        let differ = wide(self.address) ^ wide(address);
        self.address.is_ipv4() == address.is_ipv4() && differ.checked_shr(128 - u32::from(self.bits)).unwrap_or(0) == 0
    }

    /// Whether an address is in one of them; none = every address is.
    pub fn any(subnets: &[Self], address: IpAddr) -> bool {
        subnets.is_empty() || subnets.iter().any(|subnet| subnet.contains(address))
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_bits_count() {
        for (subnet, address, within) in [
            ("10.0.0.0/8", "10.9.8.7", true),
            ("10.0.0.0/8", "11.0.0.0", false),
            ("10.0.0.1", "10.0.0.1", true),
            ("10.0.0.1/32", "10.0.0.2", false),
            ("0.0.0.0/0", "1.2.3.4", true),
            ("0.0.0.0/0", "::1", false),
            ("::/0", "fd00::1", true),
            ("fd00::/8", "fd00::1", true),
            ("fd00::/8", "fc00::1", false),
            ("10.0.0.0/8", "::ffff:10.1.1.1", true),
        ] {
            let parsed = Subnet::parse(subnet).expect(subnet);
            assert_eq!(parsed.contains(address.parse().expect(address)), within, "{subnet} {address}");
        }
        for text in ["", "10.0.0.0/33", "10.0.0.0/", "10.0.0.0/-1", "10.0.0/8", "::/129", "10.0.0.0/+8"] {
            assert_eq!(Subnet::parse(text), None, "{text}");
        }
        assert!(Subnet::any(&[], "1.1.1.1".parse().unwrap()));
    }
}
