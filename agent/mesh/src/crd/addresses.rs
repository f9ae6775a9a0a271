//! Addresses of a pod, a service or an endpoint: nearly always one, so that one needs no list.

use std::net::IpAddr;
use std::ops::Deref;

/// Addresses in the order in which they were written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addresses(Repr);

/// `Several` never holds exactly one.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Repr {
    One(IpAddr),
    Several(Box<[IpAddr]>),
}

impl Default for Addresses {
    /// None.
    fn default() -> Self {
        Self(Repr::Several(Box::default()))
    }
}

impl Deref for Addresses {
    type Target = [IpAddr];

    fn deref(&self) -> &[IpAddr] {
        match &self.0 {
            Repr::One(one) => std::slice::from_ref(one),
            Repr::Several(several) => several,
        }
    }
}

impl<'a> IntoIterator for &'a Addresses {
    type Item = &'a IpAddr;
    type IntoIter = std::slice::Iter<'a, IpAddr>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl From<Vec<IpAddr>> for Addresses {
    fn from(addresses: Vec<IpAddr>) -> Self {
        Self(match *addresses {
            [one] => Repr::One(one),
            _ => Repr::Several(addresses.into()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_number_of_addresses_is_what_was_given() {
        let all: Vec<IpAddr> = ["10.0.0.1", "fd00::1", "10.0.0.2"].iter().map(|a| a.parse().unwrap()).collect();
        for count in 0..=all.len() {
            let addresses = Addresses::from(all[..count].to_vec());
            assert_eq!(&*addresses, &all[..count]);
            assert_eq!(addresses.into_iter().count(), count);
        }
        assert_eq!(Addresses::default(), Addresses::from(Vec::new()));
        assert_eq!(size_of::<Addresses>(), 24, "no more than an empty list");
    }
}
