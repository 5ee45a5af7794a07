//! The introduction of a rank to rank 0: who it is, and that both know the secret.
//!
//! 1. The rank sends its [`Identity`] and a nonce.
//! 2. Rank 0 answers with a nonce of its own and its proof.
//! 3. The rank checks the proof and sends its own.
//! 4. Rank 0 checks it and sends an empty message.

use std::io::{ErrorKind, Read};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::messages::{receive, send, send_failure};
use crate::secret::{Nonce, PROOF_BYTES, Secret, nonce};

/// Time limit of an introduction.
pub(crate) const TIME_LIMIT: Duration = Duration::from_secs(10);
/// Length of an [`Identity`] in a message.
const IDENTITY_BYTES: usize = 128;
/// Length of the prefix of a message.
const LENGTH_BYTES: usize = 8;

/// The purpose of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Data,
    Watch,
}

/// Who introduces itself: a rank of a run, with the purpose of the connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Identity<'a> {
    pub(crate) run: &'a str,
    pub(crate) size: usize,
    pub(crate) rank: usize,
    pub(crate) kind: Kind,
}

impl Identity<'_> {
    fn to_bytes(self) -> [u8; IDENTITY_BYTES] {
        let Identity { run, size, rank, kind } = self;
        // The name of a run has any length.
        let run = blake3::hash(run.as_bytes()).to_hex();
        let text = format!("vgg {} {kind:?} {size} {rank} {run}", env!("CARGO_PKG_VERSION"));
        let mut bytes = [0; IDENTITY_BYTES];
        bytes.iter_mut().zip(text.bytes()).for_each(|(to, byte)| *to = byte);
        bytes
    }
}

/// Introduces this process to rank 0.
pub(crate) fn introduce(stream: &mut TcpStream, own: Identity, secret: &Secret) -> Result<(), String> {
    stream.set_read_timeout(Some(TIME_LIMIT)).map_err(|e| e.to_string())?;
    let identity = own.to_bytes();
    let own_nonce = nonce()?;
    send(stream, 0, &[&identity[..], &own_nonce].concat())?;
    let mut answer = Vec::new();
    receive(stream, 0, 2 * PROOF_BYTES, &mut answer)?;
    let (first_nonce, proof) = answer.split_at(PROOF_BYTES);
    let messages = [&identity[..], &own_nonce, first_nonce];
    if !secret.accepts(proof, "rank 0", &messages) {
        return Err("it has another secret; set the same VGG_RANKS_SECRET for all ranks".into());
    }
    send(stream, 0, &secret.proof("other rank", &messages))?;
    receive(stream, 0, 0, &mut Vec::new())
}

/// As [`introduce`], without a check of rank 0, and with a wrong proof.
#[cfg(test)]
pub(crate) fn introduce_without_secret(stream: &mut TcpStream, own: Identity) -> Result<(), String> {
    send(stream, 0, &[&own.to_bytes()[..], &[0; PROOF_BYTES]].concat())?;
    receive(stream, 0, 2 * PROOF_BYTES, &mut Vec::new())?;
    send(stream, 0, &[0; PROOF_BYTES])?;
    receive(stream, 0, 0, &mut Vec::new())
}

/// An introduction to rank 0 that is under way. It never blocks, so that a silent process keeps nobody out.
pub(crate) struct Introduction {
    stream: TcpStream,
    since: Instant,
    received: Vec<u8>,
    /// Nonce of rank 0, and the identity and nonce of the other process; `None` before they are received.
    half: Option<(Nonce, [u8; IDENTITY_BYTES + PROOF_BYTES])>,
}

/// State of an [`Introduction`].
pub(crate) enum Progress {
    Waiting,
    /// The process has failed to introduce itself; the connection is closed.
    Failed,
    /// The place in the list of accepted identities. The connection is blocking again.
    Done(usize, TcpStream),
}

impl Introduction {
    pub(crate) fn new(stream: TcpStream) -> std::io::Result<Introduction> {
        stream.set_nonblocking(true)?;
        Ok(Introduction { stream, since: Instant::now(), received: Vec::new(), half: None })
    }

    /// Reads what has arrived and answers it. `accepted` are the identities that may introduce themselves.
    pub(crate) fn go_on(
        mut self,
        accepted: &[Identity],
        secret: &Secret,
    ) -> (Progress, Option<Introduction>) {
        if self.since.elapsed() > TIME_LIMIT {
            return (Progress::Failed, None);
        }
        let expected = if self.half.is_none() { IDENTITY_BYTES + PROOF_BYTES } else { PROOF_BYTES };
        match self.read(LENGTH_BYTES + expected) {
            Err(()) => return (Progress::Failed, None),
            Ok(false) => return (Progress::Waiting, Some(self)),
            Ok(true) => {}
        }
        let (length, message) = self.received.split_at(LENGTH_BYTES);
        if length != (expected as u64).to_le_bytes() {
            return (Progress::Failed, None);
        }
        let message = message.to_vec();
        self.received.clear();
        match self.half.take() {
            None => self.answer(&message, accepted, secret),
            Some((own_nonce, half)) => self.finish(&message, own_nonce, &half, accepted, secret),
        }
    }

    /// Reads up to `needed` bytes in total; whether all have arrived.
    fn read(&mut self, needed: usize) -> Result<bool, ()> {
        let mut bytes = [0; LENGTH_BYTES + IDENTITY_BYTES + PROOF_BYTES];
        while self.received.len() < needed {
            match self.stream.read(&mut bytes[..needed - self.received.len()]) {
                Ok(0) => return Err(()),
                Ok(n) => self.received.extend(&bytes[..n]),
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Err(()),
            }
        }
        Ok(true)
    }

    fn answer(
        mut self,
        message: &[u8],
        accepted: &[Identity],
        secret: &Secret,
    ) -> (Progress, Option<Introduction>) {
        let (identity, other_nonce) = message.split_at(IDENTITY_BYTES);
        if !accepted.iter().any(|known| known.to_bytes() == identity) {
            let reason = "rank 0 belongs to another run or another version of vgg, or has this rank already";
            send_failure(&mut self.stream, reason);
            return (Progress::Failed, None);
        }
        let (Ok(own_nonce), Ok(half)) = (nonce(), message.try_into()) else {
            return (Progress::Failed, None);
        };
        let proof = secret.proof("rank 0", &[identity, other_nonce, &own_nonce]);
        // The answer fits into the empty buffer of a new connection, so that sending it does not block.
        if send(&mut self.stream, 0, &[own_nonce, proof].concat()).is_err() {
            return (Progress::Failed, None);
        }
        self.half = Some((own_nonce, half));
        (Progress::Waiting, Some(self))
    }

    fn finish(
        mut self,
        proof: &[u8],
        own_nonce: Nonce,
        half: &[u8],
        accepted: &[Identity],
        secret: &Secret,
    ) -> (Progress, Option<Introduction>) {
        let (identity, other_nonce) = half.split_at(IDENTITY_BYTES);
        let place = accepted.iter().position(|known| known.to_bytes() == identity);
        let proven = secret.accepts(proof, "other rank", &[identity, other_nonce, &own_nonce]);
        let Some(place) = place.filter(|_| proven) else {
            send_failure(&mut self.stream, "another process has this rank, or the secret differs");
            return (Progress::Failed, None);
        };
        if self.stream.set_nonblocking(false).is_err() || send(&mut self.stream, 0, &[]).is_err() {
            return (Progress::Failed, None);
        }
        (Progress::Done(place, self.stream), None)
    }
}
