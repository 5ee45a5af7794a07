//! How errors end the program: their message, and exit codes: 2 usage or settings, 65 bad data, 66 missing input, 74 input
//! and output, 1 anything else.

use vgg::ErrorKind;

pub(crate) const BAD_DATA: u8 = 65;

/// Options that cannot be used, or contradict each other or the data.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct UsageError(pub(crate) String);

/// What happened, from the outermost cause to the innermost; a cause whose words an outer one quotes is left out.
pub(crate) fn message(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

/// The code for an error, from the first of its causes that says what kind it is.
pub(crate) fn code(error: &anyhow::Error) -> u8 {
    let kind = |cause: &(dyn std::error::Error + 'static)| match cause.downcast_ref::<vgg_bench::Error>() {
        Some(e) => Some(of_benchmark(e)),
        None if cause.is::<UsageError>() => Some(ErrorKind::Usage),
        None => ErrorKind::of(cause),
    };
    match error.chain().find_map(kind).unwrap_or(ErrorKind::Other) {
        ErrorKind::Usage => 2,
        ErrorKind::BadData => BAD_DATA,
        ErrorKind::Missing => 66,
        ErrorKind::Io => 74,
        ErrorKind::Other => 1,
    }
}

/// Of the library's error that a benchmark's error holds.
fn of_benchmark(error: &vgg_bench::Error) -> ErrorKind {
    use vgg_bench::Error;
    let of: &(dyn std::error::Error + 'static) = match error {
        Error::Tensor(e) => e,
        Error::Network(e) => e,
        Error::Train(e) => e,
        Error::Eval(e) => e,
        Error::Data(e) => e,
        _ => return ErrorKind::Other,
    };
    ErrorKind::of(of).unwrap_or(ErrorKind::Other)
}
