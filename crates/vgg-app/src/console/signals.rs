//! SIGINT, SIGTERM and SIGUSR1, which Slurm can be told to send (`--signal=USR1@120`): the first asks for a stop after which work can be taken up again, the second ends at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

use anyhow::Result;
use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1};
use signal_hook::flag;

/// Whether the user, or the system, wants the program to stop.
pub(crate) struct Interrupt(Arc<AtomicUsize>);

impl Interrupt {
    /// Listens from now on.
    pub(crate) fn listen() -> Result<Interrupt> {
        let (asked, signal) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        for number in [SIGINT, SIGTERM, SIGUSR1] {
            // In this order: the second signal finds the flag of the first.
            flag::register_conditional_shutdown(number, 128 + number, asked.clone())?;
            flag::register(number, asked.clone())?;
            flag::register_usize(number, signal.clone(), number as usize)?;
        }
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
