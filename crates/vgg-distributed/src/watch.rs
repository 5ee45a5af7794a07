//! Whether the other ranks are still there, while this one waits for something else.
//!
//! Each rank has a link of its own for this, which carries nothing: it ends when the process at its other end does, and the system asks
//! there now and then, so that a machine that is gone is found as well.

use std::io::{ErrorKind, Read};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

/// Between two looks.
const INTERVAL: Duration = Duration::from_secs(1);
/// Whoever is in the middle of an exchange with a rank that is gone notices by itself, and knows more.
const GRACE: Duration = Duration::from_secs(10);

/// Looks after links until it is dropped.
pub(crate) struct Watch(Arc<AtomicBool>);

impl Watch {
    /// Of links to these ranks. `lost` is told of the first that is gone.
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
        let over = Arc::new(AtomicBool::new(false));
        let told = over.clone();
        std::thread::Builder::new().name("vgg-watch".into()).spawn(move || {
            while !told.load(SeqCst) {
                if let Some((rank, _)) = links.iter().find(|(_, link)| is_gone(link)) {
                    std::thread::sleep(grace);
                    if !told.load(SeqCst) {
                        lost(&format!("rank {rank} is gone"));
                    }
                    return;
                }
                std::thread::sleep(interval);
            }
        })?;
        Ok(Watch(over))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

/// Nothing is ever sent: what comes is the end.
fn is_gone(mut link: &TcpStream) -> bool {
    !matches!(link.read(&mut [0]), Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn a_rank_that_goes_without_goodbye_is_named() {
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
        assert!(heard.recv_timeout(5 * moment).is_err(), "both are there");
        drop(other);
        assert_eq!(heard.recv().unwrap(), "rank 2 is gone");
        drop((watch, one));
    }

    #[test]
    fn after_goodbye_nobody_is_missed() {
        let listener = TcpListener::bind("localhost:0").unwrap();
        let there = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let here = listener.accept().unwrap().0;
        let (tell, heard) = channel();
        let moment = Duration::from_millis(20);
        let watch =
            Watch::start_with(vec![(1, here)], [moment; 2], move |what| tell.send(what.to_owned()).unwrap());
        drop(watch);
        drop(there);
        assert!(heard.recv().is_err(), "the thread ends and says nothing");
    }
}
