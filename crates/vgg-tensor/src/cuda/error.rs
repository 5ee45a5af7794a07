//! Failed calls of the driver as errors.

use cudarc::driver::DriverError;

use crate::Error;

/// Names the call that failed.
pub(crate) fn cuda_error(call: &'static str) -> impl Fn(DriverError) -> Error {
    move |e| {
        let text = e.error_string().map(|text| text.to_string_lossy().into_owned());
        Error::Cuda { call, reason: text.unwrap_or_else(|_| format!("{:?}", e.0)) }
    }
}
