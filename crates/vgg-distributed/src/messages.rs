//! Messages between ranks over TCP: a length, then the bytes.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;

/// Bit in the length of a message that contains an error instead of data.
const FAILURE: u64 = 1 << 63;
const LONGEST_REASON: usize = 1 << 16;

pub(crate) fn send(link: &mut TcpStream, rank: usize, bytes: &[u8]) -> Result<(), String> {
    let length = (bytes.len() as u64).to_le_bytes();
    link.write_all(&length).and_then(|()| link.write_all(bytes)).map_err(gone(rank))
}

/// Sends an error to a rank. A failure is ignored, because the rank may have exited.
pub(crate) fn send_failure(link: &mut TcpStream, reason: &str) {
    let length = (reason.len() as u64 | FAILURE).to_le_bytes();
    let _ = link.write_all(&length).and_then(|()| link.write_all(reason.as_bytes()));
}

/// Receives a message of `expected` bytes, or an error.
pub(crate) fn receive(
    link: &mut TcpStream,
    rank: usize,
    expected: usize,
    bytes: &mut Vec<u8>,
) -> Result<(), String> {
    let mut length = [0; 8];
    link.read_exact(&mut length).map_err(gone(rank))?;
    let length = u64::from_le_bytes(length);
    let failed = length & FAILURE != 0;
    let length = (length & !FAILURE) as usize;
    if if failed { length > LONGEST_REASON } else { length != expected } {
        return Err(format!(
            "rank {rank} sent {length} bytes instead of {expected}; run the same program with the same settings on all ranks"
        ));
    }
    bytes.resize(length, 0);
    link.read_exact(bytes).map_err(gone(rank))?;
    if failed { Err(String::from_utf8_lossy(bytes).into_owned()) } else { Ok(()) }
}

fn gone(rank: usize) -> impl Fn(std::io::Error) -> String {
    move |e| match e.kind() {
        ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => {
            format!("rank {rank} has disconnected")
        }
        ErrorKind::WouldBlock | ErrorKind::TimedOut => format!("rank {rank} timed out"),
        _ => format!("rank {rank}: {e}"),
    }
}
