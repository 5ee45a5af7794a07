//! SIGINT, SIGTERM and SIGUSR1 (Slurm: `--signal=USR1@120`): the first signal requests a resumable stop, the
//! second exits at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use anyhow::Result;
use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;
use signal_hook::low_level::exit;

/// Signals within this time of the first are ignored: Slurm signals the ranks and also their launcher, which forwards
/// the signal, so that each rank receives it twice.
const REPEAT_WINDOW: Duration = Duration::from_secs(1);

pub(crate) struct Interrupt(Arc<AtomicUsize>);

impl Interrupt {
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
                    Some(at) if at.elapsed() < REPEAT_WINDOW => {}
                    Some(_) => exit(128 + number),
                }
            }
        })?;
        Ok(Interrupt(signal))
    }

    pub(crate) fn asked(&self) -> bool {
        self.0.load(SeqCst) != 0
    }

    /// 130 after SIGINT, 143 after SIGTERM, 138 after SIGUSR1.
    pub(crate) fn exit_code(&self) -> u8 {
        (128 + self.0.load(SeqCst)) as u8
    }
}
