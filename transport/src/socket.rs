//! Socket options of both ends, each with its reason.

use std::{io, net::SocketAddr, time::Duration};

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::TcpStream;

use crate::bbr;

/// What the kernel may hold of a TCP connection that it has not sent yet. What is in there can no
/// longer be overtaken by a signal, so it is kept short; it must cover what is sent while this
/// process is not scheduled.
const NOTSENT_BYTES: u32 = 16 * 1024;

/// A TCP peer that acknowledges nothing for this long is gone. Longer than half a minute: a client
/// that does not read for so long (a phone call) has a closed window, and must not be cut for it.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(45);

/// Asked of the kernel for the sockets that all QUIC connections share; it grants what
/// `net.core.rmem_max` allows. A burst for a room of 500 is 25 MB a second.
const UDP_BUFFER_BYTES: usize = 8 * 1024 * 1024;

/// Connections that wait to be accepted; the kernel caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

pub(crate) fn udp(addr: SocketAddr) -> io::Result<std::net::UdpSocket> {
    let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
    if addr.is_ipv6() {
        // Migration keeps its estimates only for plain IPv4 addresses, so the families are apart.
        socket.set_only_v6(true)?;
    }
    // Smaller buffers work too.
    let _ = socket.set_recv_buffer_size(UDP_BUFFER_BYTES);
    let _ = socket.set_send_buffer_size(UDP_BUFFER_BYTES);
    socket.bind(&addr.into())?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

pub(crate) fn tcp_listener(addr: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

pub(crate) fn tune(stream: &TcpStream, bbr: bool) -> io::Result<()> {
    stream.set_nodelay(true)?;
    if bbr {
        bbr::prefer(stream);
    }
    #[cfg(target_os = "linux")]
    {
        let socket = SockRef::from(stream);
        socket.set_tcp_notsent_lowat(NOTSENT_BYTES)?;
        socket.set_tcp_user_timeout(Some(TCP_USER_TIMEOUT))?;
    }
    Ok(())
}
