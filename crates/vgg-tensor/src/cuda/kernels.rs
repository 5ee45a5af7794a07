//! The CUDA kernels of this crate: one source, compiled by NVRTC when a device is opened.

use std::collections::HashMap;
use std::ffi::CString;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::Path;
use std::sync::Arc;

use cudarc::driver::{CudaContext, result as driver, sys as driver_sys};
use cudarc::nvrtc::{result as nvrtc, sys as nvrtc_sys};

use super::error::cuda_error;
use crate::{Error, Precision, Result};

/// The kernel sources; the source of an operation is next to its Rust code.
const SOURCES: [&str; 12] = [
    include_str!("common.cuh"),
    include_str!("layout.cu"),
    include_str!("gradient.cu"),
    include_str!("../ops/normalize/normalize.cu"),
    include_str!("../ops/max_pool2d/max_pool2d.cu"),
    include_str!("../ops/lrn/lrn.cu"),
    include_str!("../ops/dropout/dropout.cu"),
    include_str!("../ops/softmax/softmax.cu"),
    include_str!("../ops/softmax_cross_entropy/softmax_cross_entropy.cu"),
    include_str!("../ops/global_avg_pool2d/global_avg_pool2d.cu"),
    include_str!("../ops/euclidean_loss/euclidean_loss.cu"),
    include_str!("../ops/sgd_step/sgd_step.cu"),
];

/// Sources that are compiled for bf16 only.
const BF16_SOURCES: [&str; 1] = [include_str!("../ops/conv2d/conv1_1.cu")];

/// Trailer of a cached image, which shows that the file is complete.
const WHOLE: &[u8] = b"vgg kernels";

/// Prefix of every kernel in the sources.
const KERNEL: &str = "KERNEL void ";

/// The compiled kernels of a device.
pub(super) struct Kernels {
    context: Arc<CudaContext>,
    module: driver_sys::CUmodule,
    functions: HashMap<String, driver_sys::CUfunction>,
}

// SAFETY: driver handles may be used from any thread to which the context is bound.
unsafe impl Send for Kernels {}
// SAFETY: as above.
unsafe impl Sync for Kernels {}

impl Kernels {
    /// Compiles and loads every kernel for an architecture such as `sm_90`. If the folder `cache` has an
    /// image of the same source and compiler, loads that instead.
    pub(super) fn compile(
        context: &Arc<CudaContext>,
        architecture: &str,
        precision: Precision,
        cache: Option<&Path>,
    ) -> Result<Kernels> {
        context.bind_to_thread().map_err(cuda_error("cuCtxSetCurrent"))?;
        let module = match load(&cached(architecture, precision, cache)?) {
            // The cached image may be corrupt: compile again.
            Err(_) if cache.is_some() => load(&compile(architecture, precision)?)?,
            loaded => loaded?,
        };
        let mut kernels = Kernels { context: context.clone(), module, functions: HashMap::new() };
        for name in names(precision) {
            let c_name = CString::new(name)
                .map_err(|e| Error::Cuda { call: "cuModuleGetFunction", reason: e.to_string() })?;
            // SAFETY: the module is loaded.
            let function = unsafe { driver::module::get_function(module, c_name) }
                .map_err(cuda_error("cuModuleGetFunction"))?;
            kernels.functions.insert(name.to_owned(), function);
        }
        Ok(kernels)
    }

    /// A kernel by its name.
    pub(super) fn get(&self, name: &str) -> driver_sys::CUfunction {
        match self.functions.get(name) {
            Some(function) => *function,
            None => unreachable!("there is no kernel {name}"),
        }
    }
}

impl Drop for Kernels {
    fn drop(&mut self) {
        if self.context.bind_to_thread().is_ok() {
            // SAFETY: nothing is launched after this; on failure the module is leaked until the process
            // exits.
            let _ = unsafe { driver::module::unload(self.module) };
        }
    }
}

fn sources(precision: Precision) -> impl Iterator<Item = &'static str> {
    let further: &[_] = if precision == Precision::Bf16 { &BF16_SOURCES } else { &[] };
    SOURCES.into_iter().chain(further.iter().copied())
}

/// The names of all kernels.
fn names(precision: Precision) -> impl Iterator<Item = &'static str> {
    let starts = sources(precision).flat_map(|source| source.split(KERNEL).skip(1));
    starts.filter_map(|after| after.split('(').next())
}

fn load(image: &[u8]) -> Result<driver_sys::CUmodule> {
    // SAFETY: the driver checks the image, which outlives the call.
    unsafe { driver::module::load_data(image.as_ptr().cast()) }.map_err(cuda_error("cuModuleLoadData"))
}

/// As [`compile`], cached in the folder `cache`.
fn cached(architecture: &str, precision: Precision, cache: Option<&Path>) -> Result<Vec<u8>> {
    let Some(folder) = cache else { return compile(architecture, precision) };
    let (mut major, mut minor) = (0, 0);
    // SAFETY: NVRTC writes two integers.
    let version = unsafe { nvrtc_sys::nvrtcVersion(&mut major, &mut minor) };
    version.result().map_err(|e| Error::Cuda { call: "nvrtcVersion", reason: format!("{e:?}") })?;
    let mut hasher = DefaultHasher::new();
    (sources(precision).collect::<Vec<_>>(), major, minor, env!("CARGO_PKG_VERSION")).hash(&mut hasher);
    let name = format!("kernels-{architecture}-{}-{:016x}.cubin", precision.name(), hasher.finish());
    let file = folder.join(name);
    // The trailer shows that the file is complete.
    if let Ok(mut image) = std::fs::read(&file)
        && image.ends_with(WHOLE)
    {
        image.truncate(image.len() - WHOLE.len());
        return Ok(image);
    }
    let image = compile(architecture, precision)?;
    let beside = file.with_extension(format!("{}.tmp", std::process::id()));
    // If the cache cannot be written, the next start compiles again, which takes a second.
    let _ = std::fs::create_dir_all(folder)
        .and_then(|()| std::fs::write(&beside, [&image[..], WHOLE].concat()))
        .and_then(|()| std::fs::rename(&beside, &file));
    Ok(image)
}

/// Compiles all kernels to machine code for an architecture such as `sm_90`.
fn compile(architecture: &str, precision: Precision) -> Result<Vec<u8>> {
    Ok(compile_with_log(architecture, precision, &[])?.0)
}

/// As [`compile`] with further options; also returns the compiler's log.
fn compile_with_log(architecture: &str, precision: Precision, further: &[&str]) -> Result<(Vec<u8>, String)> {
    let source =
        format!("#define KERNEL extern \"C\" __global__\n{}", sources(precision).collect::<String>());
    let mut options = vec![format!("--gpu-architecture={architecture}"), "--std=c++17".into()];
    if precision == Precision::Bf16 {
        options.push("-DVGG_BF16".into());
    }
    options.extend(further.iter().map(|option| (*option).to_owned()));
    let failed = |call, reason: String| Error::Cuda { call, reason };
    let source = CString::new(source).map_err(|e| failed("nvrtcCreateProgram", e.to_string()))?;
    let program =
        nvrtc::create_program(&source, None).map_err(|e| failed("nvrtcCreateProgram", format!("{e:?}")))?;
    // SAFETY: the program exists until it is destroyed; buffers have the lengths that NVRTC returns.
    unsafe {
        let compiled = nvrtc::compile_program(program, &options);
        let log = log(program);
        let image = compiled.map_err(|_| log.clone()).and_then(|()| image(program));
        let _ = nvrtc::destroy_program(program);
        image.map(|image| (image, log)).map_err(|reason| failed("nvrtcCompileProgram", reason))
    }
}

/// # Safety
/// The program must have been compiled.
unsafe fn image(program: nvrtc_sys::nvrtcProgram) -> std::result::Result<Vec<u8>, String> {
    let mut bytes = 0;
    // SAFETY: by the caller's promise.
    unsafe {
        nvrtc_sys::nvrtcGetCUBINSize(program, &mut bytes).result().map_err(|e| format!("{e:?}"))?;
        let mut image = vec![0u8; bytes];
        nvrtc_sys::nvrtcGetCUBIN(program, image.as_mut_ptr().cast())
            .result()
            .map_err(|e| format!("{e:?}"))?;
        Ok(image)
    }
}

/// # Safety
/// The program must exist.
unsafe fn log(program: nvrtc_sys::nvrtcProgram) -> String {
    // SAFETY: by the caller's promise.
    let log = unsafe { nvrtc::get_program_log(program) }.unwrap_or_default();
    let bytes: Vec<u8> = log.into_iter().map(|c| c as u8).take_while(|c| *c != 0).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cuda::{CudaLibrary, cuda_libraries};

    /// Compiles for A100 and H100 in bf16 and f32 (tf32 uses the f32 kernels), without register spills and
    /// stack frames.
    #[test]
    fn kernels_compile_without_spills() {
        let nvrtc = cuda_libraries().iter().find(|status| status.library == CudaLibrary::Nvrtc);
        if let Some(Err(e)) = nvrtc.map(|status| &status.found) {
            vgg_testkit::skip("nvrtc", e);
            return;
        }
        for architecture in ["sm_80", "sm_90"] {
            for precision in [Precision::Bf16, Precision::F32] {
                let (image, log) =
                    compile_with_log(architecture, precision, &["--ptxas-options=-v"]).unwrap();
                assert!(!image.is_empty());
                println!("{architecture}, {}:\n{log}", precision.name());
                for line in log.lines().filter(|line| line.contains("spill") || line.contains("stack frame"))
                {
                    let clean = "0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads";
                    assert!(line.contains(clean), "{architecture}, {}: {line}", precision.name());
                }
            }
        }
    }
}
