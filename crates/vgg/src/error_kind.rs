//! What kind of error it is, for programs that end with a code of their own for each.

use ErrorKind::{BadData, Io, Missing, Other, Usage};

/// A kind of error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// Settings or arguments that make no sense, or do not fit each other or the data.
    Usage,
    /// An image, a weights file or another file whose content is damaged or of another kind.
    BadData,
    /// A file or folder that is not there.
    Missing,
    /// Reading or writing failed.
    Io,
    /// Anything else, such as a device that fails or a loss that is not finite.
    Other,
}

impl ErrorKind {
    /// The kind of an error of these crates, or of [`std::io`]; `None` for any other.
    pub fn of(error: &(dyn std::error::Error + 'static)) -> Option<ErrorKind> {
        of_cause(error)
    }
}

type Cause<'a> = &'a (dyn std::error::Error + 'static);

/// Each library's errors may hold those of the libraries below it.
fn of_cause(cause: Cause) -> Option<ErrorKind> {
    if let Some(e) = cause.downcast_ref::<crate::Error>() {
        return Some(of_library(e));
    }
    if let Some(e) = cause.downcast_ref::<vgg_experiment::Error>() {
        return Some(of_experiment(e));
    }
    if let Some(e) = cause.downcast_ref::<vgg_train::Error>() {
        return Some(of_train(e));
    }
    if let Some(e) = cause.downcast_ref::<vgg_eval::Error>() {
        return Some(of_eval(e));
    }
    if let Some(e) = cause.downcast_ref::<vgg_weights::Error>() {
        return Some(of_weights(e));
    }
    if let Some(e) = cause.downcast_ref::<vgg_data::Error>() {
        return Some(of_data(e));
    }
    if let Some(e) = cause.downcast_ref::<vgg_files::Error>() {
        return Some(of_file(e));
    }
    if let Some(e) = cause.downcast_ref::<vgg_tensor::Error>() {
        return Some(of_tensor(e));
    }
    if let Some(e) = cause.downcast_ref::<vgg_layers::Error>() {
        return Some(of_network(e));
    }
    if let Some(e) = cause.downcast_ref::<vgg_optim::Error>() {
        return Some(of_optim(e));
    }
    cause.is::<std::io::Error>().then_some(Io)
}

fn of_library(error: &crate::Error) -> ErrorKind {
    use crate::Error;
    match error {
        Error::Config(_) => Usage,
        Error::Tensor(e) => of_tensor(e),
        Error::Network(e) => of_network(e),
        Error::Weights(e) => of_weights(e),
        Error::Data(e) => of_data(e),
        Error::Eval(e) => of_eval(e),
        Error::Experiment(e) => of_experiment(e),
        Error::File(e) => of_file(e),
        _ => Other,
    }
}

fn of_experiment(error: &vgg_experiment::Error) -> ErrorKind {
    use vgg_experiment::Error;
    match error {
        Error::Plan(_) => Usage,
        Error::Settings { source, .. } | Error::Run { source, .. } => of_experiment(source),
        Error::Ranks(e) => of_tensor(e),
        Error::Data(e) => of_data(e),
        Error::Network(e) => of_network(e),
        Error::Weights(e) => of_weights(e),
        Error::Train(e) => of_train(e),
        Error::Eval(e) => of_eval(e),
        Error::File(e) => of_file(e),
        _ => Other,
    }
}

fn of_train(error: &vgg_train::Error) -> ErrorKind {
    use vgg_train::Error;
    match error {
        Error::Gone { .. } => Io,
        Error::Config(_) | Error::Memory { .. } | Error::OtherRun { .. } | Error::OtherRank { .. } => Usage,
        Error::Optim(e) => of_optim(e),
        Error::Data(e) => of_data(e),
        Error::Network(e) => of_network(e),
        Error::Weights(e) => of_weights(e),
        Error::File(e) => of_file(e),
        Error::Tensor(e) => of_tensor(e),
        Error::Validation(e) => e.downcast_ref::<vgg_eval::Error>().map_or(Other, of_eval),
        _ => Other,
    }
}

fn of_optim(error: &vgg_optim::Error) -> ErrorKind {
    match error {
        vgg_optim::Error::Tensor(e) => of_tensor(e),
        _ => Usage,
    }
}

fn of_eval(error: &vgg_eval::Error) -> ErrorKind {
    use vgg_eval::Error;
    match error {
        Error::Config(_) | Error::Classes { .. } | Error::Fusion(_) => Usage,
        Error::Posteriors { .. } | Error::NoImages { .. } => BadData,
        Error::Data(e) => of_data(e),
        Error::Network(e) => of_network(e),
        Error::Tensor(e) => of_tensor(e),
        Error::File(e) => of_file(e),
        _ => Other,
    }
}

fn of_weights(error: &vgg_weights::Error) -> ErrorKind {
    use vgg_weights::Error;
    match error {
        Error::File(e) => of_file(e),
        Error::Metadata { .. } | Error::Tensors { .. } | Error::Absent { .. } | Error::NotFinite { .. } => {
            BadData
        }
        // The file names a network that cannot be.
        Error::Network(_) => BadData,
        _ => Other,
    }
}

fn of_data(error: &vgg_data::Error) -> ErrorKind {
    use vgg_data::Error;
    match error {
        Error::Missing { .. } => Missing,
        Error::Layout { .. } | Error::Decode { .. } | Error::TooLarge { .. } | Error::Source { .. } => {
            BadData
        }
        Error::File(e) => of_file(e),
        Error::Io { .. } | Error::NoSpace { .. } => Io,
        Error::Config(_) => Usage,
        _ => Other,
    }
}

fn of_file(error: &vgg_files::Error) -> ErrorKind {
    use vgg_files::Error;
    match error {
        Error::Missing { .. } => Missing,
        Error::Corrupt { .. } => BadData,
        _ => Io,
    }
}

fn of_network(error: &vgg_layers::Error) -> ErrorKind {
    match error {
        vgg_layers::Error::Tensor(e) | vgg_layers::Error::Layer { source: e, .. } => of_tensor(e),
        _ => Usage,
    }
}

fn of_tensor(error: &vgg_tensor::Error) -> ErrorKind {
    match error {
        vgg_tensor::Error::Threads { .. }
        | vgg_tensor::Error::Cuda { .. }
        | vgg_tensor::Error::Group { .. }
        | vgg_tensor::Error::OutOfMemory { .. } => Other,
        // No such device, or shapes that do not fit.
        _ => Usage,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_every_library_have_a_kind_by_themselves_and_within_others() {
        let memory =
            || vgg_train::Error::Memory { micro_batch: 8, needed_bytes: 2, free_bytes: 1, fitting: 4 };
        assert_eq!(ErrorKind::of(&memory()), Some(Usage));
        assert_eq!(ErrorKind::of(&vgg_experiment::Error::Train(memory())), Some(Usage));
        assert_eq!(ErrorKind::of(&crate::Error::Experiment(memory().into())), Some(Usage));
        assert_eq!(ErrorKind::of(&vgg_optim::Error::Config("lr".into())), Some(Usage));
        assert_eq!(ErrorKind::of(&vgg_eval::Error::Fusion("none".into())), Some(Usage));
        assert_eq!(ErrorKind::of(&std::io::Error::other("disk")), Some(Io));
        assert_eq!(ErrorKind::of(&std::fmt::Error), None);
    }
}
