//! An HTTP server for the files of a folder, with byte ranges and injected faults.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// A fault of the server.
#[derive(Clone, Copy)]
pub enum Fault {
    None,
    /// Refuses this number of requests first.
    Busy(usize),
    /// Flips a bit in every requested range of a shard.
    FlipsABit,
    /// Sends whole shards instead of ranges.
    IgnoresRanges,
    /// Lacks this file.
    Lacks(&'static str),
}

/// A server on a free port; runs until the process ends.
pub struct Server {
    port: u16,
    /// Number of requests for shards.
    pub ranges: Arc<AtomicUsize>,
}

impl Server {
    pub fn of(folder: &Path) -> Server {
        Server::with_fault(folder, Fault::None)
    }

    pub fn with_fault(folder: &Path, fault: Fault) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (ranges, requests) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (folder, counted) = (folder.to_owned(), ranges.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (folder, counted, requests) = (folder.clone(), counted.clone(), requests.clone());
                std::thread::spawn(move || serve(stream.unwrap(), &folder, fault, &counted, &requests));
            }
        });
        Server { port, ranges }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/a/set", self.port)
    }
}

/// Answers the requests of one connection.
fn serve(stream: TcpStream, folder: &Path, fault: Fault, ranges: &AtomicUsize, requests: &AtomicUsize) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
    let mut out = stream;
    while let Some(first) = lines.next() {
        let head: Vec<String> = lines.by_ref().take_while(|line| !line.is_empty()).collect();
        let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
        let name = path.strip_prefix("/a/set/").unwrap_or("none");
        let range = head.iter().find_map(|line| {
            let (name, value) = line.split_once(": ")?;
            let (start, end) = value.strip_prefix("bytes=")?.split_once('-')?;
            name.eq_ignore_ascii_case("range").then(|| (start.parse().unwrap(), end.parse().unwrap()))
        });
        let of_shard = name.ends_with(".tar");
        if of_shard {
            ranges.fetch_add(1, Relaxed);
        }
        let refused = matches!(fault, Fault::Busy(n) if requests.fetch_add(1, Relaxed) < n);
        let lacks = matches!(fault, Fault::Lacks(file) if file == name);
        let (status, extra, body) = match std::fs::read(folder.join(name)) {
            _ if refused => ("503 Service Unavailable", String::new(), Vec::new()),
            Ok(bytes) if !lacks => match range {
                Some((start, end)) if !(of_shard && matches!(fault, Fault::IgnoresRanges)) => {
                    let (start, end): (usize, usize) = (start, end);
                    let mut part = bytes[start..=end].to_vec();
                    if of_shard && matches!(fault, Fault::FlipsABit) {
                        part[(end - start) / 2] ^= 8;
                    }
                    let extra = format!("Content-Range: bytes {start}-{end}/{}\r\n", bytes.len());
                    ("206 Partial Content", extra, part)
                }
                _ => ("200 OK", String::new(), bytes),
            },
            _ => ("404 Not Found", String::new(), Vec::new()),
        };
        let date = "Last-Modified: Wed, 25 Nov 2026 00:00:00 GMT";
        let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n{date}\r\n{extra}\r\n", body.len());
        if out.write_all(head.as_bytes()).and_then(|()| out.write_all(&body)).is_err() {
            return;
        }
    }
}
