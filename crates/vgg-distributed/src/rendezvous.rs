//! Rendezvous of ranks over TCP: rank 0 listens at an address, and the other ranks connect to it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use socket2::{SockRef, TcpKeepalive};

use crate::messages::{receive, send, send_failure};
use crate::{Error, Launch};

/// Time limit for all ranks to connect.
const PATIENCE: Duration = Duration::from_secs(300);
/// Time limit for a process to introduce itself after it has connected.
const INTRODUCTION: Duration = Duration::from_secs(5);
const INTRODUCTION_BYTES: usize = 256;
/// A rank whose machine has not responded for about this long counts as lost.
const SILENCE: Duration = Duration::from_secs(40);

/// Address of rank 0, from `MASTER_ADDR` and `MASTER_PORT`, and the name of the run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rendezvous {
    host: String,
    port: u16,
    run: String,
}

/// Connections to rank 0; on rank 0, connections to all other ranks in order.
#[derive(Debug)]
pub(crate) struct Links {
    pub(crate) data: Vec<TcpStream>,
    /// Connections that carry no data and detect lost ranks, with the rank at the other end.
    pub(crate) watch: Vec<(usize, TcpStream)>,
}

/// The purpose of a connection.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Data,
    Watch,
}

impl Rendezvous {
    /// Reads the environment through `get`; `None` if the address is not set.
    pub(crate) fn from(get: &dyn Fn(&str) -> Option<String>) -> Result<Option<Rendezvous>, Error> {
        let (Some(host), Some(port)) = (get("MASTER_ADDR"), get("MASTER_PORT")) else { return Ok(None) };
        // The next port, because torchrun itself listens on MASTER_PORT.
        let next = port.trim().parse::<u16>().ok().and_then(|port| port.checked_add(1));
        let Some(next) = next else { return Err(Error::Value { name: "MASTER_PORT", value: port }) };
        let run = get("TORCHELASTIC_RUN_ID").unwrap_or_default();
        // After a restart, ranks of the previous attempt may still be running.
        let attempt = get("TORCHELASTIC_RESTART_COUNT").unwrap_or_default();
        Ok(Some(Rendezvous { host, port: next, run: format!("{run}/{attempt}") }))
    }

    /// Connects the ranks: rank 0 to all other ranks in order, and every other rank to rank 0.
    pub(crate) fn meet(&self, launch: Launch) -> Result<Links, String> {
        self.meet_within(launch, PATIENCE)
    }

    fn meet_within(&self, launch: Launch, patience: Duration) -> Result<Links, String> {
        let deadline = Instant::now() + patience;
        let links = match launch.rank {
            0 => self.wait(launch, deadline)?,
            _ => {
                let data = vec![self.come(launch, Kind::Data, deadline)?];
                Links { data, watch: vec![(0, self.come(launch, Kind::Watch, deadline)?)] }
            }
        };
        let watched = links.watch.iter().map(|(_, link)| link);
        let set = links.data.iter().chain(watched).try_for_each(settle);
        set.map_err(|e| format!("cannot configure a connection between ranks: {e}"))?;
        Ok(links)
    }

    fn address(&self) -> Result<SocketAddr, String> {
        let (host, port) = (self.host.as_str(), self.port);
        let found =
            (host, port).to_socket_addrs().map_err(|e| format!("cannot resolve MASTER_ADDR {host}: {e}"))?;
        // Of several addresses, prefer IPv4, which is the most common.
        let all: Vec<SocketAddr> = found.collect();
        let first = all.iter().find(|address| address.is_ipv4()).or(all.first());
        first.copied().ok_or_else(|| format!("MASTER_ADDR {host} has no address"))
    }

    /// The first message of a rank.
    fn introduction(&self, rank: usize, size: usize, kind: Kind) -> [u8; INTRODUCTION_BYTES] {
        let text = format!("vgg {} {kind:?} {size} {rank} {}", env!("CARGO_PKG_VERSION"), self.run);
        let mut bytes = [0; INTRODUCTION_BYTES];
        bytes.iter_mut().zip(text.bytes()).for_each(|(to, byte)| *to = byte);
        bytes
    }

    fn wait(&self, launch: Launch, deadline: Instant) -> Result<Links, String> {
        let address = self.address()?;
        // The address may belong to one of several networks of this machine: listen on all of them.
        let anywhere = match address.ip() {
            ip if ip.is_loopback() => ip,
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let cannot = |e| {
            let port = self.port;
            format!("cannot listen on port {port}, the port after MASTER_PORT: {e}; set another MASTER_PORT")
        };
        let listener = TcpListener::bind((anywhere, self.port)).map_err(cannot)?;
        listener.set_nonblocking(true).map_err(cannot)?;
        // Two connections for each rank.
        let mut links: Vec<[Option<TcpStream>; 2]> = (1..launch.size).map(|_| [None, None]).collect();
        while links.iter().flatten().any(Option::is_none) {
            match listener.accept() {
                Ok((stream, _)) => self.welcome(stream, launch.size, &mut links),
                Err(e) if e.kind() != std::io::ErrorKind::WouldBlock => {
                    return Err(format!("cannot accept a connection: {e}"));
                }
                Err(_) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(20)),
                Err(_) => {
                    let missing: Vec<String> = (1..launch.size)
                        .filter(|rank| links[rank - 1].iter().any(Option::is_none))
                        .map(|rank| rank.to_string())
                        .collect();
                    let reason = format!("these ranks did not connect: {}", missing.join(", "));
                    links.iter_mut().flatten().flatten().for_each(|link| send_failure(link, &reason));
                    return Err(reason);
                }
            }
        }
        let (mut data, mut watch) = (Vec::new(), Vec::new());
        for (rank, [of_data, of_watch]) in (1..).zip(links) {
            data.extend(of_data);
            watch.extend(of_watch.map(|link| (rank, link)));
        }
        Ok(Links { data, watch })
    }

    /// Accepts the connection if it is from a rank of this run, and rejects it otherwise.
    fn welcome(&self, mut stream: TcpStream, size: usize, links: &mut [[Option<TcpStream>; 2]]) {
        let mut text = Vec::new();
        let timed =
            stream.set_nonblocking(false).and_then(|()| stream.set_read_timeout(Some(INTRODUCTION))).is_ok();
        if !timed || receive(&mut stream, 0, INTRODUCTION_BYTES, &mut text).is_err() {
            return;
        }
        let mut all = (1..size).flat_map(|rank| [(rank, Kind::Data), (rank, Kind::Watch)]);
        let found = all.find(|(rank, kind)| text == self.introduction(*rank, size, *kind));
        match found.map(|(rank, kind)| &mut links[rank - 1][kind as usize]) {
            None => send_failure(&mut stream, "rank 0 belongs to another run, or to another version of vgg"),
            Some(Some(_)) => send_failure(&mut stream, "another process already has this rank"),
            Some(place) => {
                if send(&mut stream, 0, &[]).is_ok() {
                    *place = Some(stream);
                }
            }
        }
    }

    fn come(&self, launch: Launch, kind: Kind, deadline: Instant) -> Result<TcpStream, String> {
        let mut stream = loop {
            let tried = self.address().and_then(|address| {
                TcpStream::connect_timeout(&address, INTRODUCTION).map_err(|e| format!("{address}: {e}"))
            });
            match tried {
                Ok(stream) => break stream,
                Err(e) if Instant::now() >= deadline => return Err(format!("cannot connect to rank 0: {e}")),
                Err(_) => std::thread::sleep(Duration::from_millis(100)),
            }
        };
        let own = self.introduction(launch.rank, launch.size, kind);
        // Rank 0 handles one connection at a time, and others may be first.
        let patience = INTRODUCTION * (launch.size as u32 + 1);
        stream.set_read_timeout(Some(patience)).map_err(|e| e.to_string())?;
        let welcome = send(&mut stream, 0, &own).and_then(|()| receive(&mut stream, 0, 0, &mut Vec::new()));
        let rank = launch.rank;
        welcome.map_err(|e| {
            format!("rank 0 did not accept the connection: {e}; check that no other process is rank {rank}")
        })?;
        Ok(stream)
    }
}

/// Removes the time limits of a connection and enables TCP keepalive. The buffer of a data connection may be
/// full for as long as the other rank computes, so only the connection without data detects a lost machine.
fn settle(link: &TcpStream) -> std::io::Result<()> {
    link.set_read_timeout(None)?;
    link.set_nodelay(true)?;
    let socket = SockRef::from(link);
    let interval = SILENCE / 8;
    socket.set_tcp_keepalive(
        &TcpKeepalive::new().with_time(SILENCE / 2).with_interval(interval).with_retries(4),
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::Launcher;

    fn place() -> Rendezvous {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        Rendezvous { host: "localhost".into(), port, run: "test/0".into() }
    }

    fn of(rank: usize, size: usize) -> Launch {
        Launch { launcher: Launcher::Torchrun, rank, size, local_rank: rank, local_size: size }
    }

    #[test]
    fn ranks_that_do_not_connect_are_named() {
        let place = place();
        let second = std::thread::spawn({
            let place = place.clone();
            move || {
                let mut links = place.meet(of(1, 4)).unwrap();
                receive(&mut links.data[0], 0, 0, &mut Vec::new()).unwrap_err()
            }
        });
        let reason = place.meet_within(of(0, 4), Duration::from_millis(500)).unwrap_err();
        assert_eq!(reason, "these ranks did not connect: 2, 3");
        assert_eq!(second.join().unwrap(), reason, "connected ranks get the same error");
    }

    #[test]
    fn connections_from_outside_of_the_run_are_rejected() {
        let place = place();
        let first = std::thread::spawn({
            let place = place.clone();
            move || place.meet(of(0, 2)).map(|links| links.data.len())
        });
        let other = Rendezvous { run: "other/0".into(), ..place.clone() };
        let reason = other.meet(of(1, 2)).unwrap_err();
        assert!(reason.contains("another run"), "{reason}");
        let reason = place.meet(of(1, 3)).unwrap_err();
        assert!(reason.contains("another run"), "{reason}");
        let mut noise = TcpStream::connect(("localhost", place.port)).unwrap();
        noise.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        drop(noise);
        assert_eq!(place.meet(of(1, 2)).unwrap().data.len(), 1);
        assert_eq!(first.join().unwrap(), Ok(1));
    }
}
