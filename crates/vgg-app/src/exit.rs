//! Error messages and exit codes of errors: 2 usage or settings, 65 bad data, 66 missing input, 74 I/O, 1 others.
//! `console/signals.rs` has those of signals.

use vgg_error::{ErrorKind, shortened};

pub(crate) const BAD_DATA: u8 = 65;
pub(crate) const IO: u8 = 74;

/// Longest message in characters.
const MAX_CHARACTERS: usize = 20_000;

/// Invalid options, or options that contradict each other or the data.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct UsageError(pub(crate) String);

/// The error, its causes that are not already in the text, and a hint.
pub(crate) fn message(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    // Lists of differences are long, and so may be text from a file.
    let text = shortened(&text, MAX_CHARACTERS);
    match hint(kind(error)) {
        Some(hint) => format!("{text}\n{hint}"),
        None => text.into_owned(),
    }
}

/// The exit code, by the kind of the outermost cause that has one.
pub(crate) fn code(error: &anyhow::Error) -> u8 {
    match kind(error) {
        ErrorKind::Usage | ErrorKind::NoCuda => 2,
        ErrorKind::BadData | ErrorKind::Incomplete | ErrorKind::Checksum => BAD_DATA,
        ErrorKind::Missing | ErrorKind::Unfinished => 66,
        ErrorKind::Io | ErrorKind::NoSpace => IO,
        _ => 1,
    }
}

/// What to do about the error. Hints name options, which library errors never mention.
fn hint(kind: ErrorKind) -> Option<&'static str> {
    match kind {
        ErrorKind::NoCuda => Some("pass --device cpu to run without a GPU"),
        ErrorKind::Incomplete => Some("pass --allow-incomplete to accept the images that are present"),
        ErrorKind::Checksum => Some("download the file again, or pass --skip-md5 to accept it"),
        ErrorKind::NoSpace => Some("use another disk, or store smaller images with --smallest-side"),
        ErrorKind::Unfinished => {
            Some("rerun the same preparation to resume it; join complete parts with vgg data merge")
        }
        ErrorKind::Internal => Some("this is a bug in vgg; please report it"),
        _ => None,
    }
}

fn kind(error: &anyhow::Error) -> ErrorKind {
    let kind_of = |cause: &(dyn std::error::Error + 'static)| match cause.downcast_ref::<vgg_bench::Error>() {
        Some(error) => Some(error.kind()),
        None if cause.is::<UsageError>() => Some(ErrorKind::Usage),
        None => cause.downcast_ref().map(vgg_distributed::Error::kind).or_else(|| vgg::error_kind(cause)),
    };
    error.chain().find_map(kind_of).unwrap_or(ErrorKind::Other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hint_and_exit_code_follow_the_cause() {
        let tensor = vgg_tensor::Error::NoCuda { reason: "no driver".into() };
        let error = anyhow::Error::from(vgg::Error::Tensor(tensor));
        assert_eq!(message(&error), "CUDA is unavailable: no driver\npass --device cpu to run without a GPU");
        assert_eq!(code(&error), 2);
        let bug = anyhow::Error::from(vgg_train::Error::Internal("x".into()));
        assert_eq!((code(&bug), message(&bug).contains("please report it")), (1, true));
        assert_eq!(code(&std::fmt::Error.into()), 1);
    }
}
