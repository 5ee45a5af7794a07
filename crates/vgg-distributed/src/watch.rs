//! Detection of lost ranks while this rank waits for something else.
//!
//! Each rank has a separate connection for this, which carries no data. It closes when the process at the
//! other end exits, and TCP keepalive closes it when the other machine is lost.

use std::io::{ErrorKind, Read};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

/// Time between two checks.
const INTERVAL: Duration = Duration::from_secs(1);
/// Time from noticing a lost rank to reporting it. Usually a collective operation with that rank fails in
/// this time, with a more specific error.
const GRACE: Duration = Duration::from_secs(10);

/// Watches connections until it is dropped.
pub(crate) struct Watch(Arc<AtomicBool>);

impl Watch {
    /// Watches the connections to these ranks; calls `lost` for the first that closes.
    pub(crate) fn start(
        links: Vec<(usize, TcpStream)>,
        lost: impl Fn(&str) + Send + 'static,
    ) -> std::io::Result<Watch> {
        Watch::start_with(links, [INTERVAL, GRACE], lost)
    }

    fn start_with(
        links: Vec<(usize, TcpStream)>,
        [interval, grace]: [Duration; 2],
        lost: impl Fn(&str) + Send + 'static,
    ) -> std::io::Result<Watch> {
        for (_, link) in &links {
            link.set_nonblocking(true)?;
        }
        let stopped = Arc::new(AtomicBool::new(false));
        let watch = Watch(stopped.clone());
        std::thread::Builder::new().name("vgg-watch".into()).spawn(move || {
            while !stopped.load(SeqCst) {
                if let Some((rank, _)) = links.iter().find(|(_, link)| is_gone(link)) {
                    std::thread::sleep(grace);
                    if !stopped.load(SeqCst) {
                        lost(&format!("rank {rank} has disconnected"));
                    }
                    return;
                }
                std::thread::sleep(interval);
            }
        })?;
        Ok(watch)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

/// Whether the connection is closed. No data is ever sent on it, so a read that returns is its end.
fn is_gone(mut link: &TcpStream) -> bool {
    !matches!(link.read(&mut [0]), Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn a_rank_that_disconnects_is_reported() {
        let listener = TcpListener::bind("localhost:0").unwrap();
        let pair = || {
            let there = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            (listener.accept().unwrap().0, there)
        };
        let ((first, one), (second, other)) = (pair(), pair());
        let (tell, heard) = channel();
        let moment = Duration::from_millis(20);
        let watch = Watch::start_with(vec![(1, first), (2, second)], [moment; 2], move |what| {
            tell.send(what.to_owned()).unwrap();
        });
        assert!(heard.recv_timeout(5 * moment).is_err(), "both ranks are connected");
        drop(other);
        assert_eq!(heard.recv().unwrap(), "rank 2 has disconnected");
        drop((watch, one));
    }

    #[test]
    fn a_dropped_watch_reports_nothing() {
        let listener = TcpListener::bind("localhost:0").unwrap();
        let there = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let here = listener.accept().unwrap().0;
        let (tell, heard) = channel();
        let moment = Duration::from_millis(20);
        let watch =
            Watch::start_with(vec![(1, here)], [moment; 2], move |what| tell.send(what.to_owned()).unwrap());
        drop(watch);
        drop(there);
        assert!(heard.recv().is_err(), "the thread ends without a report");
    }
}
