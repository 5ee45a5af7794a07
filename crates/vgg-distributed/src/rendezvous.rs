//! Rendezvous of ranks over TCP: rank 0 listens at an address, and the other ranks connect to it.

use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use socket2::{SockRef, TcpKeepalive};

use crate::Error;
use crate::Launch;
use crate::introduction::{Identity, Introduction, Kind, Progress, TIME_LIMIT, introduce};
use crate::messages::send_failure;
use crate::secret::Secret;

/// Time limit for all ranks to connect.
const PATIENCE: Duration = Duration::from_secs(300);
/// Most introductions at a time; a further connection replaces the oldest, which is likely a silent one.
const INTRODUCTIONS: usize = 256;
/// A rank whose machine has not responded for about this long counts as lost.
const SILENCE: Duration = Duration::from_secs(40);

/// Address of rank 0, from `MASTER_ADDR` and `MASTER_PORT`, and the name of the run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rendezvous {
    host: String,
    port: u16,
    run: String,
    secret: Secret,
}

/// Connections to rank 0; on rank 0, connections to all other ranks in order.
#[derive(Debug)]
pub(crate) struct Links {
    pub(crate) data: Vec<TcpStream>,
    /// Connections that carry no data and detect lost ranks, with the rank at the other end.
    pub(crate) watch: Vec<(usize, TcpStream)>,
}

impl Rendezvous {
    /// Reads the environment of a rank through `get`; `None` if the address is not set.
    pub(crate) fn from(
        get: &dyn Fn(&str) -> Option<String>,
        launch: Launch,
    ) -> Result<Option<Rendezvous>, Error> {
        let (Some(host), Some(port)) = (get("MASTER_ADDR"), get("MASTER_PORT")) else { return Ok(None) };
        // The next port, because torchrun itself listens on MASTER_PORT.
        let next = port.trim().parse::<u16>().ok().and_then(|port| port.checked_add(1));
        let Some(next) = next else {
            return Err(launch.no_transport(&format!("MASTER_PORT={port:?} is not a port of at most 65534")));
        };
        let run = get("TORCHELASTIC_RUN_ID").unwrap_or_default();
        // After a restart, ranks of the previous attempt may still be running.
        let attempt = get("TORCHELASTIC_RESTART_COUNT").unwrap_or_default();
        let secret = Secret::from(get, launch.rank, Instant::now() + PATIENCE);
        let secret = secret.map_err(|reason| launch.no_transport(&reason))?;
        Ok(Some(Rendezvous { host, port: next, run: format!("{run}/{attempt}"), secret }))
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

    /// Fails if any process of another machine could join the run.
    fn check_secret(&self, address: SocketAddr) -> Result<(), String> {
        if address.ip().is_loopback() || !self.secret.is_empty() {
            return Ok(());
        }
        Err(format!(
            "MASTER_ADDR {} can be reached from other machines, and the ranks have no secret; set VGG_RANKS_SECRET to \
             the same random text on all ranks, or VGG_RANKS_SECRET_FILE to a file that all can read, or, if all ranks \
             are on this machine, MASTER_ADDR=127.0.0.1",
            self.host
        ))
    }

    fn identity(&self, rank: usize, size: usize, kind: Kind) -> Identity<'_> {
        Identity { run: &self.run, size, rank, kind }
    }

    /// Accepts the connections of all other ranks. Introductions go on side by side.
    fn wait(&self, launch: Launch, deadline: Instant) -> Result<Links, String> {
        let address = self.address()?;
        self.check_secret(address)?;
        let cannot = |e| {
            let port = self.port;
            format!(
                "cannot listen at MASTER_ADDR {}, port {port}, the port after MASTER_PORT: {e}; set another MASTER_PORT, \
                 and MASTER_ADDR to an address of this machine",
                self.host
            )
        };
        let listener = TcpListener::bind(address).map_err(cannot)?;
        listener.set_nonblocking(true).map_err(cannot)?;
        let mut awaited: Vec<Identity> = (1..launch.size)
            .flat_map(|rank| [Kind::Data, Kind::Watch].map(|kind| self.identity(rank, launch.size, kind)))
            .collect();
        let mut links = Links { data: Vec::new(), watch: Vec::new() };
        let mut data = Vec::new();
        let mut introductions: Vec<Introduction> = Vec::new();
        let mut refused = 0;
        while !awaited.is_empty() {
            if Instant::now() >= deadline {
                let mut missing: Vec<String> = awaited.iter().map(|own| own.rank.to_string()).collect();
                missing.dedup();
                let mut reason = format!("these ranks did not connect: {}", missing.join(", "));
                if refused > 0 {
                    reason.push_str(&format!(
                        "; refused connections: {refused} (another run or version of vgg, or another secret)"
                    ));
                }
                let watch = links.watch.iter_mut().map(|(_, link)| link);
                data.iter_mut()
                    .map(|(_, link)| link)
                    .chain(watch)
                    .for_each(|link| send_failure(link, &reason));
                return Err(reason);
            }
            match listener.accept() {
                Ok((stream, _)) => {
                    if introductions.len() == INTRODUCTIONS {
                        introductions.remove(0);
                    }
                    introductions.extend(Introduction::new(stream));
                }
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                // Such as too many open files: connections that are under way may end soon.
                Err(_) => std::thread::sleep(Duration::from_millis(100)),
            }
            let mut waiting = Vec::new();
            for introduction in introductions {
                let (progress, again) = introduction.go_on(&awaited, &self.secret);
                waiting.extend(again);
                match progress {
                    Progress::Waiting => {}
                    Progress::Failed => refused += 1,
                    Progress::Done(place, stream) => {
                        let Identity { rank, kind, .. } = awaited.remove(place);
                        match kind {
                            Kind::Data => data.push((rank, stream)),
                            Kind::Watch => links.watch.push((rank, stream)),
                        }
                    }
                }
            }
            introductions = waiting;
        }
        data.sort_by_key(|(rank, _)| *rank);
        links.watch.sort_by_key(|(rank, _)| *rank);
        links.data = data.into_iter().map(|(_, stream)| stream).collect();
        Ok(links)
    }

    fn come(&self, launch: Launch, kind: Kind, deadline: Instant) -> Result<TcpStream, String> {
        let mut stream = loop {
            let address = self.address();
            if let Ok(address) = address {
                self.check_secret(address)?;
            }
            let tried = address.and_then(|address| {
                TcpStream::connect_timeout(&address, TIME_LIMIT).map_err(|e| format!("{address}: {e}"))
            });
            match tried {
                Ok(stream) => break stream,
                Err(e) if Instant::now() >= deadline => return Err(format!("cannot connect to rank 0: {e}")),
                Err(_) => std::thread::sleep(Duration::from_millis(100)),
            }
        };
        let rank = launch.rank;
        introduce(&mut stream, self.identity(rank, launch.size, kind), &self.secret).map_err(|e| {
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
        Rendezvous { host: "localhost".into(), port, run: "test/0".into(), secret: Secret::none() }
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
                crate::messages::receive(&mut links.data[0], 0, 0, &mut Vec::new()).unwrap_err()
            }
        });
        let reason = place.meet_within(of(0, 4), Duration::from_millis(500)).unwrap_err();
        assert_eq!(reason, "these ranks did not connect: 2, 3");
        assert_eq!(second.join().unwrap(), reason, "connected ranks get the same error");
    }

    #[test]
    fn refused_connections_are_counted() {
        let place = place();
        let first = std::thread::spawn({
            let place = place.clone();
            move || place.meet_within(of(0, 2), Duration::from_millis(500)).unwrap_err()
        });
        let other = Rendezvous { run: "other/0".into(), ..place };
        other.meet(of(1, 2)).unwrap_err();
        let reason = first.join().unwrap();
        assert!(reason.contains("did not connect: 1; refused connections: 1 (another run"), "{reason}");
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

    fn with_secret(secret: &str, host: &str) -> Result<Rendezvous, String> {
        let port = place().port;
        let get = |name: &str| match name {
            "MASTER_ADDR" => Some(host.to_owned()),
            "MASTER_PORT" => Some((port - 1).to_string()),
            "VGG_RANKS_SECRET" => Some(secret.to_owned()),
            _ => None,
        };
        Rendezvous::from(&get, of(0, 2)).map(Option::unwrap).map_err(|e| e.to_string())
    }

    #[test]
    fn strangers_do_not_become_a_rank() {
        let place = with_secret("a secret of this run", "localhost").unwrap();
        let first = std::thread::spawn({
            let place = place.clone();
            move || place.meet(of(0, 2)).map(|links| links.data.len())
        });
        // Knows the run and the protocol, but not the secret.
        for secret in [Secret::none(), with_secret("another secret, as long", "localhost").unwrap().secret] {
            let reason = Rendezvous { secret, ..place.clone() }.meet(of(1, 2)).unwrap_err();
            assert!(reason.contains("VGG_RANKS_SECRET"), "{reason}");
        }
        // A process that does not check rank 0 and sends a wrong proof.
        let mut stream = TcpStream::connect(("localhost", place.port)).unwrap();
        let identity = Identity { run: &place.run, size: 2, rank: 1, kind: Kind::Data };
        let reason = crate::introduction::introduce_without_secret(&mut stream, identity).unwrap_err();
        assert!(reason.contains("the secret differs"), "{reason}");
        assert_eq!(place.meet(of(1, 2)).unwrap().data.len(), 1);
        assert_eq!(first.join().unwrap(), Ok(1));
    }

    /// Silent and slow connections before, and more of them than rank 0 keeps, while the ranks introduce themselves.
    #[test]
    fn silent_connections_keep_no_rank_out() {
        let place = place();
        let first = std::thread::spawn({
            let place = place.clone();
            move || place.meet(of(0, 3)).map(|links| links.data.len())
        });
        let mut silent = Vec::new();
        for i in 0..INTRODUCTIONS + 20 {
            let connected = (0..200).find_map(|_| {
                let stream = TcpStream::connect(("localhost", place.port)).ok();
                if stream.is_none() {
                    std::thread::sleep(Duration::from_millis(10));
                }
                stream
            });
            let mut stream = connected.unwrap();
            if i % 2 == 1 {
                let _ = stream.write_all(&[7; 30]);
            }
            silent.push(stream);
        }
        let others: Vec<_> = [1, 2]
            .map(|rank| {
                let place = place.clone();
                std::thread::spawn(move || place.meet(of(rank, 3)).map(|links| links.data.len()))
            })
            .into();
        for other in others {
            assert_eq!(other.join().unwrap(), Ok(1));
        }
        assert_eq!(first.join().unwrap(), Ok(2));
    }

    #[test]
    fn other_machines_need_a_secret() {
        // An address of documentation, which no machine has.
        let open = Rendezvous { host: "192.0.2.1".into(), ..place() };
        for rank in [0, 1] {
            let reason = open.meet(of(rank, 2)).unwrap_err();
            for word in ["VGG_RANKS_SECRET", "VGG_RANKS_SECRET_FILE", "MASTER_ADDR=127.0.0.1"] {
                assert!(reason.contains(word), "{reason}");
            }
        }
        assert!(with_secret("short", "localhost").unwrap_err().contains("at least 16 characters"));
        // With a secret, rank 0 listens at the named address alone, which is not this machine's.
        let reason = with_secret("a secret of this run", "192.0.2.1").unwrap().meet(of(0, 2)).unwrap_err();
        assert!(reason.contains("cannot listen at MASTER_ADDR 192.0.2.1"), "{reason}");
    }
}
