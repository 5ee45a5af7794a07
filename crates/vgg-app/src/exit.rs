//! Exit codes: 2 usage or settings, 65 bad data, 66 missing input, 74 input and output, 1 anything else.

/// The code for an error, from the first of its causes that says what kind it is.
pub(crate) fn code(error: &anyhow::Error) -> u8 {
    error.chain().find_map(of_cause).unwrap_or(1)
}

fn of_cause(cause: &(dyn std::error::Error + 'static)) -> Option<u8> {
    if let Some(e) = cause.downcast_ref::<vgg_files::Error>() {
        return Some(match e {
            vgg_files::Error::Missing { .. } => 66,
            vgg_files::Error::Corrupt { .. } => 65,
            _ => 74,
        });
    }
    if let Some(e) = cause.downcast_ref::<vgg_data::Error>() {
        return Some(match e {
            vgg_data::Error::Missing { .. } => 66,
            vgg_data::Error::Layout { .. } | vgg_data::Error::Decode { .. } => 65,
            vgg_data::Error::Io { .. } => 74,
            vgg_data::Error::Config(_) => 2,
            _ => 1,
        });
    }
    cause.downcast_ref::<vgg_layers::Error>().map(|_| 2)
}
