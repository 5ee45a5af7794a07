//! A process group over TCP: all ranks connect to rank 0, at the address that `torchrun` sets.
//!
//! Rank 0 receives from the other ranks in order and sends the result to all. This suits the collectives that
//! GPUs do not run over NCCL, and a few CPU ranks; MPI is better for all-reduce over many CPU ranks.

use std::net::TcpStream;
use std::sync::{Mutex, PoisonError};

use vgg_tensor::{Error, ProcessGroup, Result};

use crate::Launch;
use crate::messages::{receive, send, send_failure};
use crate::rendezvous::Rendezvous;
use crate::watch::Watch;

/// All processes that connected at an address.
pub(crate) struct TcpGroup {
    rank: usize,
    size: usize,
    links: Mutex<Links>,
    /// Watches the other ranks until all have left.
    _watch: Watch,
}

/// The connection to rank 0; on rank 0, one connection to each other rank, in order.
struct Links {
    streams: Vec<TcpStream>,
    /// Message buffer, reused between calls.
    bytes: Vec<u8>,
}

impl TcpGroup {
    pub(crate) fn join(
        launch: Launch,
        place: &Rendezvous,
        lost: impl Fn(&str) + Send + 'static,
    ) -> std::result::Result<TcpGroup, crate::Error> {
        let met = place.meet(launch).map_err(|reason| launch.no_transport(&reason))?;
        let watch = Watch::start(met.watch, lost).map_err(|e| launch.no_transport(&e.to_string()))?;
        let links = Mutex::new(Links { streams: met.data, bytes: Vec::new() });
        Ok(TcpGroup { rank: launch.rank, size: launch.size, links, _watch: watch })
    }

    /// Runs `f` on the connections. Rank 0 sends an error to all other ranks.
    fn with(&self, f: impl FnOnce(&mut Links) -> std::result::Result<(), String>) -> Result<()> {
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        f(&mut links).map_err(|reason| {
            if self.rank == 0 {
                links.streams.iter_mut().for_each(|link| send_failure(link, &reason));
            }
            Error::Group { reason }
        })
    }
}

impl Drop for TcpGroup {
    /// Leaves at a barrier, so that no rank reports a rank as lost that has only finished earlier.
    fn drop(&mut self) {
        // An error means that a rank has disconnected; there is nothing left to do.
        let _ = self.barrier();
    }
}

impl Links {
    /// On rank 0: receives `expected` bytes from each other rank in order and passes them to `use_bytes`.
    fn receive_all(
        &mut self,
        expected: usize,
        mut use_bytes: impl FnMut(&[u8]),
    ) -> std::result::Result<(), String> {
        for (link, rank) in self.streams.iter_mut().zip(1..) {
            receive(link, rank, expected, &mut self.bytes)?;
            use_bytes(&self.bytes);
        }
        Ok(())
    }

    /// On rank 0: sends the buffer to all other ranks.
    fn send_all(&mut self) -> std::result::Result<(), String> {
        self.streams.iter_mut().zip(1..).try_for_each(|(link, rank)| send(link, rank, &self.bytes))
    }

    /// On another rank: sends the buffer and receives the reply into it.
    fn exchange(&mut self, expected: usize) -> std::result::Result<(), String> {
        let link = &mut self.streams[0];
        send(link, 0, &self.bytes)?;
        receive(link, 0, expected, &mut self.bytes)
    }
}

impl ProcessGroup for TcpGroup {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn all_reduce(&self, values: &mut [f32]) -> Result<()> {
        let size = size_of_val(values);
        self.with(|links| {
            if self.rank == 0 {
                links.receive_all(size, |bytes| {
                    values
                        .iter_mut()
                        .zip(decoded(bytes, f32::from_le_bytes))
                        .for_each(|(v, other)| *v += other);
                })?;
                encode(values, f32::to_le_bytes, &mut links.bytes);
                return links.send_all();
            }
            encode(values, f32::to_le_bytes, &mut links.bytes);
            links.exchange(size)?;
            values.iter_mut().zip(decoded(&links.bytes, f32::from_le_bytes)).for_each(|(v, sum)| *v = sum);
            Ok(())
        })
    }

    fn all_gather(&self, values: &[f64]) -> Result<Vec<f64>> {
        let mut all = values.to_vec();
        self.with(|links| {
            if self.rank == 0 {
                links.receive_all(size_of_val(values), |bytes| {
                    all.extend(decoded(bytes, f64::from_le_bytes))
                })?;
                encode(&all, f64::to_le_bytes, &mut links.bytes);
                return links.send_all();
            }
            encode(values, f64::to_le_bytes, &mut links.bytes);
            links.exchange(self.size * size_of_val(values))?;
            all.clear();
            all.extend(decoded(&links.bytes, f64::from_le_bytes));
            Ok(())
        })?;
        Ok(all)
    }

    fn abort(&self, code: i32) -> ! {
        // The other ranks detect that their connections are closed.
        std::process::exit(code)
    }
}

fn encode<V: Copy, const N: usize>(values: &[V], to_bytes: fn(V) -> [u8; N], bytes: &mut Vec<u8>) {
    bytes.resize(N * values.len(), 0);
    let (places, _) = bytes.as_chunks_mut();
    places.iter_mut().zip(values).for_each(|(place, value)| *place = to_bytes(*value));
}

fn decoded<V, const N: usize>(bytes: &[u8], from_bytes: fn([u8; N]) -> V) -> impl Iterator<Item = V> {
    bytes.as_chunks().0.iter().map(move |bytes| from_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::sync::mpsc::channel;

    use super::*;
    use crate::Launcher;

    /// Runs `one` on three ranks; returns the result of each and its calls of `lost`.
    fn each<R: Send + 'static>(one: fn(TcpGroup) -> R) -> Vec<(R, Vec<String>)> {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let get = move |name: &str| match name {
            "MASTER_ADDR" => Some("localhost".to_owned()),
            "MASTER_PORT" => Some((port - 1).to_string()),
            _ => None,
        };
        let launch =
            |rank| Launch { launcher: Launcher::Torchrun, rank, size: 3, local_rank: rank, local_size: 3 };
        let place = Rendezvous::from(&get, launch(0)).unwrap().unwrap();
        let start = |rank| {
            let place = place.clone();
            std::thread::spawn(move || {
                let (tell, heard) = channel();
                let lost = move |what: &str| drop(tell.send(what.to_owned()));
                let group = TcpGroup::join(launch(rank), &place, lost).unwrap();
                (one(group), heard.try_iter().collect())
            })
        };
        let ranks: Vec<_> = (0..3).map(start).collect();
        ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
    }

    #[test]
    fn all_reduce_and_all_gather_combine_all_ranks() {
        let found = each(|group| {
            let rank = group.rank() as f32;
            let mut values = vec![rank + 1.0; 100_000];
            values[7] = 10.0 * rank;
            group.all_reduce(&mut values).unwrap();
            let bytes = vec![group.rank() as u8; 5 + 3 * group.rank()];
            (
                values[0],
                values[7],
                group.all_gather(&[1.5, f64::from(rank)]).unwrap(),
                group.all_gather_bytes(&bytes).unwrap(),
            )
        });
        for ((all, one, list, bytes), lost) in found {
            assert_eq!((all, one, lost), (6.0, 30.0, Vec::new()));
            assert_eq!(list, [1.5, 0.0, 1.5, 1.0, 1.5, 2.0]);
            assert_eq!(bytes, [vec![0; 5], vec![1; 8], vec![2; 11]]);
        }
    }

    #[test]
    fn a_rank_that_disconnects_is_named() {
        let found = each(|group| match group.rank() {
            // Leaves without the barrier.
            2 => {
                let Links { streams, .. } = &*group.links.lock().unwrap();
                streams[0].shutdown(std::net::Shutdown::Both).unwrap();
                String::new()
            }
            _ => group.all_reduce(&mut [1.0; 5]).unwrap_err().to_string(),
        });
        assert!(
            found[0].0.contains("rank 2 has disconnected") && found[1].0.contains("rank 2 has disconnected"),
            "{found:?}"
        );
    }
}
