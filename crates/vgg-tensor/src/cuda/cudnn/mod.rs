//! Convolutions by cuDNN: a graph per shape and pass, and for each the fastest of the engines that can run it.

mod choices;
mod descriptor;
mod graph;
mod plan;

use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use cudarc::cudnn::{result, sys};
use cudarc::driver::CudaStream;
use cudarc::driver::sys::CUdeviceptr;

use self::choices::{Choice, Choices};
use self::descriptor::{Descriptor, Kind, Name, Type, check};
use self::graph::{BIAS, W, X, Y};
pub(crate) use self::graph::{ConvolutionKey, ConvolutionPass};
use self::plan::{Plan, Target};
use super::Cuda;
use crate::{DeviceConfig, Engines, Error, Precision, Result};

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
    engines: Engines,
    plans: Mutex<HashMap<ConvolutionKey, Arc<Known>>>,
    choices: Mutex<Choices>,
}

/// What is known of a convolution.
struct Known {
    plan: Plan,
    /// Whether it won against the others. A device that plans cannot time, so it takes the first.
    chosen: bool,
}

// SAFETY: a plan is a value in host memory that executions only read.
unsafe impl Sync for Known {}

// SAFETY: cuDNN's handle is used under the context of whoever calls, on one stream.
unsafe impl Send for Cudnn {}
// SAFETY: as above.
unsafe impl Sync for Cudnn {}

/// Engines that are timed for a convolution: cuDNN puts the promising ones first.
const TIMED: usize = 10;
/// Time that may go into making the plans of one convolution: some engines are compiled for it.
const PLANNING_TIME: Duration = Duration::from_secs(4);
/// Executions of which the mean counts, after one that warms up.
const REPETITIONS: usize = 3;
/// More scratch memory than this, and than the first engine wants, disqualifies.
const MOST_WORKSPACE_BYTES: usize = 64 << 20;

impl Cudnn {
    /// `device` names the kind of device.
    pub(super) fn new(stream: &CudaStream, config: &DeviceConfig, device: &str) -> Result<Cudnn> {
        let (precision, engines) = (config.precision, config.engines);
        let failed = |call| move |e: result::CudnnError| Error::Cuda { call, reason: format!("{:?}", e.0) };
        let handle = result::create_handle().map_err(failed("cudnnCreate"))?;
        let name = format!("{} {device} {} {engines:?}", result::get_version(), precision.name());
        let choices = Mutex::new(Choices::open(config.cache.as_deref(), &name));
        let cudnn = Cudnn { handle, precision, engines, plans: Mutex::default(), choices };
        // SAFETY: handle and stream exist, and the stream lives as long as the GPU that holds both.
        unsafe { result::set_stream(handle, stream.cu_stream().cast()) }.map_err(failed("cudnnSetStream"))?;
        Ok(cudnn)
    }

    pub(super) fn engines(&self) -> Engines {
        self.engines
    }

    /// Runs a convolution. The first time, all candidates run, one after the other, and the fastest is kept.
    pub(crate) fn run(&self, cuda: &Cuda, key: ConvolutionKey, operands: ConvolutionOperands) -> Result<()> {
        let known = self.plans.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        let known = match known {
            Some(known) if known.chosen || cuda.is_planning() => known,
            _ => {
                cuda.bind()?;
                let known = Arc::new(self.find(cuda, key, operands)?);
                self.plans.lock().unwrap_or_else(PoisonError::into_inner).insert(key, known.clone());
                known
            }
        };
        let workspace = cuda.take_bytes(known.plan.workspace_bytes)?;
        if cuda.is_planning() {
            return Ok(());
        }
        cuda.bind()?;
        self.execute(&known.plan, operands, workspace.pointer())
    }

    /// The engines that were chosen, with the microseconds that each took when it was timed.
    pub(crate) fn describe_choices(&self) -> Vec<(String, usize, f64)> {
        let choices = self.choices.lock().unwrap_or_else(PoisonError::into_inner).describe();
        choices.into_iter().map(|(name, choice)| (name, choice.place, choice.microseconds)).collect()
    }

    fn find(&self, cuda: &Cuda, key: ConvolutionKey, operands: ConvolutionOperands) -> Result<Known> {
        let target = Target::Handle(self.handle);
        let graph = key.graph(cuda.element(), target.handle())?;
        let engines = plan::candidates(&graph, (self.precision, self.engines), &target)?;
        let mut choices = self.choices.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(choice) = choices.get(&key)
            && let Some(Ok(plan)) =
                engines.get(choice.place).map(|engine| Plan::new(engine, choice.place, &target))
        {
            return Ok(Known { plan, chosen: true });
        }
        let (start, mut plans, mut last) = (Instant::now(), Vec::new(), None);
        for (place, engine) in engines.iter().enumerate() {
            match Plan::new(engine, place, &target) {
                Ok(plan) => plans.push(plan),
                Err(e) => last = Some(e),
            }
            let enough = plans.len() >= TIMED || start.elapsed() > PLANNING_TIME || cuda.is_planning();
            if enough && !plans.is_empty() {
                break;
            }
        }
        let Some(first) = plans.first() else {
            let reason = last.map_or_else(|| "there is no engine for it".to_owned(), |e| e.to_string());
            return Err(Error::Cuda { call: "cuDNN", reason: format!("{key:?}: {reason}") });
        };
        if cuda.is_planning() {
            return Ok(Known { plan: plans.swap_remove(0), chosen: false });
        }
        let most = first.workspace_bytes.max(MOST_WORKSPACE_BYTES);
        plans.retain(|plan| plan.workspace_bytes <= most);
        let mut best: Option<(usize, f64)> = None;
        for (i, plan) in plans.iter().enumerate() {
            // An engine that cannot run what it promised is passed over.
            if let Ok(seconds) = self.time(cuda, plan, operands)
                && best.is_none_or(|(_, least)| seconds < least)
            {
                best = Some((i, seconds));
            }
        }
        let Some((i, seconds)) = best else {
            return Err(Error::Cuda {
                call: "cudnnBackendExecute",
                reason: format!("{key:?}: no engine runs"),
            });
        };
        let plan = plans.swap_remove(i);
        choices.insert(&key, Choice { place: plan.place, microseconds: seconds * 1e6 });
        Ok(Known { plan, chosen: true })
    }

    /// Seconds of an execution. Each overwrites the result of the one before.
    fn time(&self, cuda: &Cuda, plan: &Plan, operands: ConvolutionOperands) -> Result<f64> {
        let workspace = cuda.take_bytes(plan.workspace_bytes)?;
        self.execute(plan, operands, workspace.pointer())?;
        cuda.synchronize()?;
        let start = Instant::now();
        for _ in 0..REPETITIONS {
            self.execute(plan, operands, workspace.pointer())?;
        }
        cuda.synchronize()?;
        Ok(start.elapsed().as_secs_f64() / REPETITIONS as f64)
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
