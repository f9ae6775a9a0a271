//! Between the standard library's addresses and the kernel ABI's 16 bytes. Used all over `datapath`.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use weir_ebpf::{ANY_ADDRESS, Address, Backend, PROTOCOL_TCP, PROTOCOL_UDP, ServiceKey};
use weir_mesh::plan::PlanKey;

/// IPv4 becomes v4-mapped.
pub(super) fn mapped(address: IpAddr) -> Address {
    match address {
        IpAddr::V4(v4) => weir_ebpf::v4_mapped(v4.octets()),
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// v4-mapped becomes IPv4.
pub(super) fn endpoint(address: &Address, port: u16) -> SocketAddr {
    SocketAddr::new(Ipv6Addr::from(*address).to_canonical(), port)
}

/// A used entry of `weir_backends`.
pub(super) fn backend(endpoint: SocketAddr) -> Backend {
    Backend { address: mapped(endpoint.ip()), port: endpoint.port(), in_use: 1 }
}

/// The kernel's key for the plan's.
pub(super) fn service_key(key: &PlanKey) -> ServiceKey {
    ServiceKey {
        view: key.view,
        address: key.address.map_or(ANY_ADDRESS, mapped),
        port: key.port,
        protocol: if key.udp { PROTOCOL_UDP } else { PROTOCOL_TCP },
        pad: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_survive_the_way_to_the_kernel_and_back() {
        for text in ["10.96.7.7:80", "[fd00::1]:8080", "[::1]:1"] {
            let there: SocketAddr = text.parse().unwrap();
            assert_eq!(endpoint(&mapped(there.ip()), there.port()), there);
        }
        let mapped_v6: SocketAddr = "[::ffff:10.0.0.1]:5".parse().unwrap();
        assert_eq!(endpoint(&mapped(mapped_v6.ip()), 5), "10.0.0.1:5".parse().unwrap());
    }

    #[test]
    fn any_address_and_udp_have_their_keys() {
        let key = service_key(&PlanKey { view: 3, address: None, port: 53, udp: true });
        assert_eq!((key.view, key.address, key.port, key.protocol), (3, ANY_ADDRESS, 53, PROTOCOL_UDP));
    }
}
