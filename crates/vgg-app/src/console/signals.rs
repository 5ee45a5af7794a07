//! SIGINT, SIGTERM and SIGUSR1, which Slurm can be told to send (`--signal=USR1@120`): the first asks for a stop after which work can be
//! taken up again, the second ends at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use anyhow::Result;
use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;
use signal_hook::low_level::exit;

/// What comes within this time of the first signal is the same request once more: Slurm signals ranks and their launcher, which hands
/// it on.
const ECHO: Duration = Duration::from_secs(1);

/// Whether the user, or the system, wants the program to stop.
pub(crate) struct Interrupt(Arc<AtomicUsize>);

impl Interrupt {
    /// Listens from now on.
    pub(crate) fn listen() -> Result<Interrupt> {
        let signal = Arc::new(AtomicUsize::new(0));
        let mut signals = Signals::new([SIGINT, SIGTERM, SIGUSR1])?;
        let heard = signal.clone();
        std::thread::Builder::new().name("vgg-signals".into()).spawn(move || {
            let mut first: Option<Instant> = None;
            for number in signals.forever() {
                match first {
                    None => {
                        heard.store(number as usize, SeqCst);
                        first = Some(Instant::now());
                    }
                    Some(at) if at.elapsed() < ECHO => {}
                    Some(_) => exit(128 + number),
                }
            }
        })?;
        Ok(Interrupt(signal))
    }

    /// Whether a signal came.
    pub(crate) fn asked(&self) -> bool {
        self.0.load(SeqCst) != 0
    }

    /// 130 after SIGINT, 143 after SIGTERM, 138 after SIGUSR1.
    pub(crate) fn exit_code(&self) -> u8 {
        (128 + self.0.load(SeqCst)) as u8
    }
}
