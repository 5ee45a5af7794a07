//! Convolutions by cuDNN: a graph per shape and pass, and for each the fastest of the engines that can run it.

mod descriptor;
mod graph;
mod plan;

use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::{Arc, Mutex, PoisonError};

use cudarc::cudnn::{result, sys};
use cudarc::driver::CudaStream;
use cudarc::driver::sys::CUdeviceptr;

use self::descriptor::{Descriptor, Kind, Name, Type, check};
use self::graph::{BIAS, W, X, Y};
pub(crate) use self::graph::{ConvolutionKey, ConvolutionPass};
use self::plan::{Plan, Target};
use super::Cuda;
use crate::{Error, Precision, Result};

/// Pointers of a convolution's operands; what a pass does not have is 0.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ConvolutionOperands {
    pub(crate) x: CUdeviceptr,
    pub(crate) w: CUdeviceptr,
    pub(crate) y: CUdeviceptr,
    pub(crate) bias: CUdeviceptr,
}

/// cuDNN on one stream, with the plans that were made so far.
pub(crate) struct Cudnn {
    handle: sys::cudnnHandle_t,
    precision: Precision,
    plans: Mutex<HashMap<ConvolutionKey, Arc<Mutex<Plan>>>>,
}

// SAFETY: cuDNN's handle is used under the context of whoever calls, on one stream.
unsafe impl Send for Cudnn {}
// SAFETY: as above.
unsafe impl Sync for Cudnn {}

impl Cudnn {
    pub(super) fn new(stream: &CudaStream, precision: Precision) -> Result<Cudnn> {
        let failed = |call| move |e: result::CudnnError| Error::Cuda { call, reason: format!("{:?}", e.0) };
        let handle = result::create_handle().map_err(failed("cudnnCreate"))?;
        let cudnn = Cudnn { handle, precision, plans: Mutex::default() };
        // SAFETY: handle and stream exist, and the stream lives as long as the GPU that holds both.
        unsafe { result::set_stream(handle, stream.cu_stream().cast()) }.map_err(failed("cudnnSetStream"))?;
        Ok(cudnn)
    }

    /// Runs a convolution.
    pub(crate) fn run(&self, cuda: &Cuda, key: ConvolutionKey, operands: ConvolutionOperands) -> Result<()> {
        let plan = self.plan(cuda, key)?;
        let plan = plan.lock().unwrap_or_else(PoisonError::into_inner);
        let workspace = cuda.take_bytes(plan.workspace_bytes)?;
        if cuda.is_planning() {
            return Ok(());
        }
        cuda.bind()?;
        self.execute(&plan, operands, workspace.pointer())
    }

    /// The properties of the device as cuDNN's JSON.
    pub(crate) fn device_properties(&self) -> Result<String> {
        let name = Name::CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION;
        let properties = Descriptor::new(Kind::CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR)?
            .set(Name::CUDNN_ATTR_DEVICEPROP_HANDLE, Type::CUDNN_TYPE_HANDLE, &[self.handle])?
            .finish()?;
        let mut text = vec![0u8; properties.count(name, Type::CUDNN_TYPE_CHAR)?];
        let count = properties.get(name, Type::CUDNN_TYPE_CHAR, &mut text)?;
        text.truncate(count);
        text.retain(|byte| *byte != 0);
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    fn plan(&self, cuda: &Cuda, key: ConvolutionKey) -> Result<Arc<Mutex<Plan>>> {
        let mut plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(plan) = plans.get(&key) {
            return Ok(plan.clone());
        }
        cuda.bind()?;
        let target = Target::Handle(self.handle);
        let graph = key.graph(cuda.element(), target.handle())?;
        let mut last = None;
        for candidate in plan::candidates(&graph, self.precision, &target)? {
            match Plan::new(candidate, &target) {
                Ok(plan) => {
                    let plan = Arc::new(Mutex::new(plan));
                    plans.insert(key, plan.clone());
                    return Ok(plan);
                }
                Err(e) => last = Some(e),
            }
        }
        let reason = last.map_or_else(|| "there is no engine for it".to_owned(), |e| e.to_string());
        Err(Error::Cuda { call: "cuDNN", reason: format!("{key:?}: {reason}") })
    }

    fn execute(&self, plan: &Plan, operands: ConvolutionOperands, workspace: CUdeviceptr) -> Result<()> {
        let all = [(X, operands.x), (W, operands.w), (Y, operands.y), (BIAS, operands.bias)];
        let used: Vec<(i64, CUdeviceptr)> = all.into_iter().filter(|(_, pointer)| *pointer != 0).collect();
        let numbers: Vec<i64> = used.iter().map(|(number, _)| *number).collect();
        let pointers: Vec<*mut c_void> = used.iter().map(|(_, pointer)| *pointer as *mut c_void).collect();
        let pack = Descriptor::new(Kind::CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR)?
            .set(Name::CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, Type::CUDNN_TYPE_VOID_PTR, &pointers)?
            .integers(Name::CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, &numbers)?
            .set(
                Name::CUDNN_ATTR_VARIANT_PACK_WORKSPACE,
                Type::CUDNN_TYPE_VOID_PTR,
                &[workspace as *mut c_void],
            )?
            .finish()?;
        // SAFETY: the pointers are of device memory of the sizes in the graph, which its users keep to.
        let status = unsafe { sys::cudnnBackendExecute(self.handle, plan.descriptor.raw(), pack.raw()) };
        check("cudnnBackendExecute", status)
    }
}

impl Drop for Cudnn {
    fn drop(&mut self) {
        // SAFETY: nothing uses the handle after this; what fails here is lost with the process.
        let _ = unsafe { result::destroy_handle(self.handle) };
    }
}
