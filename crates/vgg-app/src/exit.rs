//! How errors end the program: their message, and exit codes: 2 usage or settings, 65 bad data, 66 missing input, 74 input
//! and output, 1 anything else.

const USAGE: u8 = 2;
pub(crate) const BAD_DATA: u8 = 65;
const MISSING: u8 = 66;
const IO: u8 = 74;
const OTHER: u8 = 1;

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

type Cause<'a> = &'a (dyn std::error::Error + 'static);

/// The code for an error, from the first of its causes that says what kind it is.
pub(crate) fn code(error: &anyhow::Error) -> u8 {
    error.chain().find_map(of_cause).unwrap_or(OTHER)
}

/// Each library's errors may hold those of the libraries below it.
fn of_cause(cause: Cause) -> Option<u8> {
    if cause.is::<UsageError>() {
        return Some(USAGE);
    }
    if let Some(e) = cause.downcast_ref::<vgg::Error>() {
        return Some(of_library(e));
    }
    if let Some(e) = cause.downcast_ref::<vgg_experiment::Error>() {
        return Some(of_experiment(e));
    }
    if let Some(e) = cause.downcast_ref::<vgg_bench::Error>() {
        return Some(of_bench(e));
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
    cause.is::<std::io::Error>().then_some(IO)
}

fn of_library(error: &vgg::Error) -> u8 {
    use vgg::Error;
    match error {
        Error::Config(_) => USAGE,
        Error::Tensor(e) => of_tensor(e),
        Error::Network(e) => of_network(e),
        Error::Weights(e) => of_weights(e),
        Error::Data(e) => of_data(e),
        Error::Eval(e) => of_eval(e),
        Error::Experiment(e) => of_experiment(e),
        Error::File(e) => of_file(e),
        _ => OTHER,
    }
}

fn of_experiment(error: &vgg_experiment::Error) -> u8 {
    use vgg_experiment::Error;
    match error {
        Error::Plan(_) => USAGE,
        Error::Settings { source, .. } | Error::Run { source, .. } => of_experiment(source),
        Error::Ranks(e) => of_tensor(e),
        Error::Data(e) => of_data(e),
        Error::Network(e) => of_network(e),
        Error::Weights(e) => of_weights(e),
        Error::Train(e) => of_train(e),
        Error::Eval(e) => of_eval(e),
        Error::File(e) => of_file(e),
        _ => OTHER,
    }
}

fn of_bench(error: &vgg_bench::Error) -> u8 {
    use vgg_bench::Error;
    match error {
        Error::Tensor(e) => of_tensor(e),
        Error::Network(e) => of_network(e),
        Error::Train(e) => of_train(e),
        Error::Eval(e) => of_eval(e),
        Error::Data(e) => of_data(e),
        _ => OTHER,
    }
}

fn of_train(error: &vgg_train::Error) -> u8 {
    use vgg_train::Error;
    match error {
        Error::Gone { .. } => IO,
        Error::Config(_)
        | Error::Memory { .. }
        | Error::OtherRun { .. }
        | Error::OtherRank { .. }
        | Error::Optim(_) => USAGE,
        Error::Data(e) => of_data(e),
        Error::Network(e) => of_network(e),
        Error::Weights(e) => of_weights(e),
        Error::File(e) => of_file(e),
        Error::Tensor(e) => of_tensor(e),
        Error::Validation(e) => e.downcast_ref::<vgg_eval::Error>().map_or(OTHER, of_eval),
        _ => OTHER,
    }
}

fn of_eval(error: &vgg_eval::Error) -> u8 {
    use vgg_eval::Error;
    match error {
        Error::Config(_) | Error::Classes { .. } | Error::Fusion(_) => USAGE,
        Error::Posteriors { .. } | Error::NoImages { .. } => BAD_DATA,
        Error::Data(e) => of_data(e),
        Error::Network(e) => of_network(e),
        Error::Tensor(e) => of_tensor(e),
        Error::File(e) => of_file(e),
        _ => OTHER,
    }
}

fn of_weights(error: &vgg_weights::Error) -> u8 {
    use vgg_weights::Error;
    match error {
        Error::File(e) => of_file(e),
        Error::Metadata { .. } | Error::Tensors { .. } | Error::Absent { .. } | Error::NotFinite { .. } => {
            BAD_DATA
        }
        // The file names a network that cannot be.
        Error::Network(_) => BAD_DATA,
        _ => OTHER,
    }
}

fn of_data(error: &vgg_data::Error) -> u8 {
    use vgg_data::Error;
    match error {
        Error::Missing { .. } => MISSING,
        Error::Layout { .. } | Error::Decode { .. } | Error::TooLarge { .. } | Error::Source { .. } => {
            BAD_DATA
        }
        Error::File(e) => of_file(e),
        Error::Io { .. } | Error::NoSpace { .. } => IO,
        Error::Config(_) => USAGE,
        _ => OTHER,
    }
}

fn of_file(error: &vgg_files::Error) -> u8 {
    use vgg_files::Error;
    match error {
        Error::Missing { .. } => MISSING,
        Error::Corrupt { .. } => BAD_DATA,
        _ => IO,
    }
}

fn of_network(error: &vgg_layers::Error) -> u8 {
    match error {
        vgg_layers::Error::Tensor(e) | vgg_layers::Error::Layer { source: e, .. } => of_tensor(e),
        _ => USAGE,
    }
}

fn of_tensor(error: &vgg_tensor::Error) -> u8 {
    match error {
        vgg_tensor::Error::Threads { .. }
        | vgg_tensor::Error::Cuda { .. }
        | vgg_tensor::Error::Group { .. }
        | vgg_tensor::Error::OutOfMemory { .. } => OTHER,
        // No such device, or shapes that do not fit.
        _ => USAGE,
    }
}
