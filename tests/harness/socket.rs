//! The few things about sockets that the standard library does not say: binding to a device, dissolving a connection,
//! connecting the same socket again. Used by the client's `sockets` mode.

use std::io;
use std::mem::size_of;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// A TCP socket that can be connected more than once.
#[derive(Debug)]
pub struct Socket(OwnedFd);

impl Socket {
    /// A blocking TCP socket of the family of `like`.
    ///
    /// # Errors
    /// When the kernel says no.
    pub fn tcp(like: SocketAddr) -> io::Result<Self> {
        let family = if like.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
        // SAFETY: plain socket(2).
        let fd = unsafe { libc::socket(family, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new and ours alone.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// SO_BINDTODEVICE.
    ///
    /// # Errors
    /// When there is no such device.
    pub fn bind_to_device(&self, device: &str) -> io::Result<()> {
        // SAFETY: the name is valid for its length.
        check(unsafe {
            libc::setsockopt(
                self.0.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_BINDTODEVICE,
                device.as_ptr().cast(),
                device.len() as libc::socklen_t,
            )
        })
    }

    /// connect(2).
    ///
    /// # Errors
    /// As connect(2).
    pub fn connect(&self, to: SocketAddr) -> io::Result<()> {
        match to {
            SocketAddr::V4(to) => {
                let address = libc::sockaddr_in {
                    sin_family: libc::AF_INET as libc::sa_family_t,
                    sin_port: to.port().to_be(),
                    sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(to.ip().octets()) },
                    sin_zero: [0; 8],
                };
                self.connect_raw(&address)
            }
            SocketAddr::V6(to) => {
                let address = libc::sockaddr_in6 {
                    sin6_family: libc::AF_INET6 as libc::sa_family_t,
                    sin6_port: to.port().to_be(),
                    sin6_flowinfo: 0,
                    sin6_addr: libc::in6_addr { s6_addr: to.ip().octets() },
                    sin6_scope_id: 0,
                };
                self.connect_raw(&address)
            }
        }
    }

    /// connect(AF_UNSPEC): the socket is as new, but its local address.
    ///
    /// # Errors
    /// As connect(2).
    pub fn dissolve(&self) -> io::Result<()> {
        let address = libc::sockaddr { sa_family: libc::AF_UNSPEC as libc::sa_family_t, sa_data: [0; 14] };
        self.connect_raw(&address)
    }

    fn connect_raw<A>(&self, address: &A) -> io::Result<()> {
        // SAFETY: `address` is a socket address of that size.
        check(unsafe {
            libc::connect(self.0.as_raw_fd(), std::ptr::from_ref(address).cast(), size_of::<A>() as libc::socklen_t)
        })
    }

    /// The same socket as a stream, to read, write and ask for its addresses.
    ///
    /// # Errors
    /// When no descriptor is left.
    pub fn stream(&self) -> io::Result<TcpStream> {
        Ok(TcpStream::from(self.0.try_clone()?))
    }
}

/// SO_LINGER 0: closing sends a reset and leaves no TIME_WAIT, so that one client can make tens of thousands of
/// connections to one address.
///
/// # Errors
/// When the kernel says no.
pub fn reset_on_close(stream: &TcpStream) -> io::Result<()> {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    // SAFETY: `linger` is valid for its size.
    check(unsafe {
        libc::setsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_LINGER,
            (&raw const linger).cast(),
            size_of::<libc::linger>() as libc::socklen_t,
        )
    })
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
