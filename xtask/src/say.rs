//! Lines on stderr and stdout. What cannot be written, on a full disk or a closed pipe, is discarded: a message must
//! not end a task.

use std::fmt::Arguments;
use std::io::Write;

/// Prints a message on stderr.
macro_rules! say {
    ($($text:tt)*) => { $crate::say::write_line(&mut std::io::stderr(), format_args!($($text)*)) };
}

/// Prints a result on stdout.
macro_rules! print_line {
    ($($text:tt)*) => { $crate::say::write_line(&mut std::io::stdout(), format_args!($($text)*)) };
}

pub(crate) fn write_line(to: &mut dyn Write, text: Arguments) {
    let _ = to.write_all(format!("{text}\n").as_bytes());
}
