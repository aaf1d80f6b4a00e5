//! Who refused a connection: the instance, or somebody on the way.
//!
//! A firewall that rejects, or a router, answers with ICMP "port unreachable", and the system reports that like the
//! reset of an instance on whose port nobody listens: as "connection refused". The first is silence, which may be our
//! own fault; the second is proof. Linux keeps the ICMP message in the error queue of a socket that asked for it
//! (`IP_RECVERR`, for connections that are being opened since 5.18); everywhere else the two cannot be told apart.

use std::net::SocketAddr;

use tokio::net::TcpStream;

use super::Finding;

#[cfg(not(target_os = "linux"))]
pub(super) async fn dial(addr: SocketAddr) -> Result<TcpStream, Finding> {
    TcpStream::connect(addr).await.map_err(|error| Finding::io(&error))
}

#[cfg(target_os = "linux")]
pub(super) use linux::dial;

#[cfg(target_os = "linux")]
mod linux {
    use std::{
        io::{self, IoSliceMut},
        net::{IpAddr, Ipv4Addr, Ipv6Addr},
        os::fd::{AsFd, AsRawFd},
    };

    use nix::{
        errno::Errno,
        libc,
        sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt, sockopt},
    };
    use socket2::{Domain, Protocol, Socket, Type};

    use super::{Finding, SocketAddr, TcpStream};
    use crate::observation::Class;

    /// Opens a connection, and finds out who refused it. Cancel safe.
    pub(in crate::probe) async fn dial(addr: SocketAddr) -> Result<TcpStream, Finding> {
        let broken = |error: io::Error| Finding::io(&error);
        let kind = Type::STREAM.nonblocking();
        let socket = Socket::new(Domain::for_address(addr), kind, Some(Protocol::TCP)).map_err(broken)?;
        // Where it cannot be had, whoever refuses is taken to be the instance, as on other systems.
        let _ = keep_errors(&socket, addr, true);
        match socket.connect(&addr.into()) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
            Err(error) => return Err(refusal(&socket, &error)),
        }
        let stream = TcpStream::from_std(socket.into()).map_err(broken)?;
        stream.writable().await.map_err(broken)?;
        if let Some(error) = stream.take_error().map_err(broken)? {
            return Err(refusal(&stream, &error));
        }
        // An open connection is as any other: it outlives an ICMP message.
        let _ = keep_errors(&stream, addr, false);
        Ok(stream)
    }

    fn keep_errors(socket: &impl AsFd, addr: SocketAddr, on: bool) -> nix::Result<()> {
        match addr {
            SocketAddr::V4(_) => setsockopt(&socket, sockopt::Ipv4RecvErr, &on),
            SocketAddr::V6(_) => setsockopt(&socket, sockopt::Ipv6RecvErr, &on),
        }
    }

    fn refusal(socket: &impl AsRawFd, error: &io::Error) -> Finding {
        if error.kind() != io::ErrorKind::ConnectionRefused {
            return Finding::io(error);
        }
        match sender(socket) {
            Some(from) => Finding::new(
                Class::Silence,
                format!("ICMP port unreachable{from}: a firewall or router refused it, not the instance"),
            ),
            None => Finding::io(error),
        }
    }

    /// Who sent the ICMP message behind an error, in words; `None` when there is no such message.
    fn sender(socket: &impl AsRawFd) -> Option<String> {
        let mut room = nix::cmsg_space!([u8; 128]);
        let mut packet = [0; 128];
        let mut packet = [IoSliceMut::new(&mut packet)];
        let message = loop {
            match recvmsg::<()>(socket.as_raw_fd(), &mut packet, Some(&mut room), MsgFlags::MSG_ERRQUEUE) {
                Ok(message) => break message,
                Err(Errno::EINTR) => {}
                Err(_) => return None,
            }
        };
        message.cmsgs().ok()?.find_map(|control| match control {
            ControlMessageOwned::Ipv4RecvErr(error, from) if is_icmp(&error) => {
                Some(told(from.map(|from| Ipv4Addr::from(from.sin_addr.s_addr.to_ne_bytes()).into())))
            }
            ControlMessageOwned::Ipv6RecvErr(error, from) if is_icmp(&error) => {
                Some(told(from.map(|from| Ipv6Addr::from(from.sin6_addr.s6_addr).to_canonical())))
            }
            _ => None,
        })
    }

    fn is_icmp(error: &libc::sock_extended_err) -> bool {
        matches!(error.ee_origin, libc::SO_EE_ORIGIN_ICMP | libc::SO_EE_ORIGIN_ICMP6)
    }

    fn told(from: Option<IpAddr>) -> String {
        from.filter(|from| !from.is_unspecified()).map(|from| format!(" from {from}")).unwrap_or_default()
    }
}
