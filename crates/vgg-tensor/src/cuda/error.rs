//! Errors of driver calls.

use cudarc::driver::DriverError;

use crate::Error;

/// Converts a driver error to [`Error::Cuda`] with the name of the call.
pub(crate) fn cuda_error(call: &'static str) -> impl Fn(DriverError) -> Error {
    move |e| {
        let text = e.error_string().map(|text| text.to_string_lossy().into_owned());
        Error::Cuda { call, reason: text.unwrap_or_else(|_| format!("{:?}", e.0)) }
    }
}
