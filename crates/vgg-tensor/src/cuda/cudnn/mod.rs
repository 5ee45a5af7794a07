//! Convolutions by cuDNN: an operation graph per shape and pass, run by the fastest engine that supports it.

mod autotune_cache;
mod descriptor;
mod graph;
mod plan;

use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use cudarc::cudnn::{result, sys};
use cudarc::driver::CudaStream;
use cudarc::driver::sys::CUdeviceptr;

use self::autotune_cache::{AutotuneCache, Choice};
use self::descriptor::{Descriptor, Kind, Name, check};
use self::graph::{BIAS, W, X, Y};
use self::plan::{Plan, Target};
use super::stream::Stream;
use super::{ConvolutionKey, ConvolutionOperands, Element};
use crate::{DeviceConfig, Engines, Error, Precision, Result};

/// cuDNN on one stream, with a cache of execution plans.
pub(crate) struct Cudnn {
    /// Locked for every call that takes it: only one thread at a time may use a cuDNN handle. Where both are
    /// locked, `choices` is locked first.
    handle: Mutex<sys::cudnnHandle_t>,
    precision: Precision,
    engines: Engines,
    plans: Mutex<HashMap<ConvolutionKey, Arc<Known>>>,
    choices: Mutex<AutotuneCache>,
    /// Number of existing guards of [`Cudnn::autotuning`].
    autotuning: AtomicUsize,
}

/// While this guard exists, every convolution without a chosen engine is autotuned.
pub(crate) struct Autotuning<'a>(&'a AtomicUsize);

impl Drop for Autotuning<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// A cached plan of a convolution.
struct Known {
    plan: Plan,
    /// Whether autotuning chose it, in this process or according to the cache file.
    chosen: bool,
    uses: AtomicUsize,
}

// SAFETY: a plan is a value in host memory that executions only read.
unsafe impl Sync for Known {}

// SAFETY: the handle is used under the calling thread's context.
unsafe impl Send for Cudnn {}
// SAFETY: the handle is behind a lock, and everything else is `Sync` itself.
unsafe impl Sync for Cudnn {}

/// Maximum number of engines to time for a convolution; cuDNN ranks the most promising first.
const TIMED: usize = 16;
/// Time limit for creating the plans of one convolution: some engines are compiled at that point.
const PLANNING_TIME: Duration = Duration::from_secs(3);
/// Duration of the repeated executions whose mean is measured, after one warm-up, and their maximum number.
const TIMING: Duration = Duration::from_millis(5);
const MOST_REPETITIONS: usize = 10;
/// Plans that take at most this multiple of the fastest time are timed again, in this many rounds.
const NEAR: f64 = 1.1;
const ROUNDS: usize = 3;
/// A plan whose first execution takes longer than this multiple of the fastest time is not timed further. The
/// limit is high because the first execution of an engine may be slow.
const HOPELESS: f64 = 10.0;
/// Number of uses after which a convolution is autotuned without a guard of [`Cudnn::autotuning`]. Dense
/// evaluation has hundreds of sizes, most of them used only a few times; they run on the engine that cuDNN
/// ranks first.
const WORTH_TIMING: usize = 8;
/// Maximum number of cached plans.
const MOST_PLANS: usize = 4096;
/// Plans that need a larger workspace than this, and than the first plan, are not timed.
const MOST_WORKSPACE_BYTES: usize = 64 << 20;

impl Cudnn {
    /// `device` is the name of the GPU model.
    pub(super) fn new(
        stream: &CudaStream,
        config: &DeviceConfig,
        precision: Precision,
        device: &str,
    ) -> Result<Cudnn> {
        let engines = config.engines;
        let failed = |call| move |e: result::CudnnError| Error::Cuda { call, reason: format!("{:?}", e.0) };
        let handle = result::create_handle().map_err(failed("cudnnCreate"))?;
        let name = format!("{} {device} {} {engines:?}", result::get_version(), precision.name());
        let choices = Mutex::new(AutotuneCache::open(config.cache.as_deref(), &name));
        let cudnn = Cudnn {
            handle: Mutex::new(handle),
            precision,
            engines,
            plans: Mutex::default(),
            choices,
            autotuning: AtomicUsize::new(0),
        };
        // SAFETY: handle and stream exist, and the stream lives as long as the GPU that holds both.
        unsafe { result::set_stream(handle, stream.cu_stream().cast()) }.map_err(failed("cudnnSetStream"))?;
        Ok(cudnn)
    }

    pub(super) fn engines(&self) -> Engines {
        self.engines
    }

    pub(super) fn autotuning(&self) -> Autotuning<'_> {
        self.autotuning.fetch_add(1, Relaxed);
        Autotuning(&self.autotuning)
    }

    /// Runs a convolution. In a step that will be captured, and for a shape that is used often, times the
    /// candidate engines one after another and keeps the fastest.
    ///
    /// # Safety
    /// The operands must be memory of this device with the sizes in `key` and its activations' element type.
    pub(super) unsafe fn run(
        &self,
        stream: &Stream,
        key: ConvolutionKey,
        operands: ConvolutionOperands,
    ) -> Result<()> {
        let known = self.plans.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        let uses = known.as_ref().map_or(0, |known| known.uses.fetch_add(1, Relaxed));
        let worth = self.autotuning.load(Relaxed) > 0 || uses >= WORTH_TIMING;
        let timing = worth && !stream.is_dry_run() && !stream.is_capturing()?;
        let known = match known {
            Some(known) if known.chosen || !timing => known,
            _ => {
                stream.bind()?;
                // SAFETY: by the caller's promise.
                let known = Arc::new(unsafe { self.find(stream, key, operands, timing) }?);
                let mut plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
                if plans.len() >= MOST_PLANS {
                    plans.clear();
                }
                plans.insert(key, known.clone());
                known
            }
        };
        let workspace = stream.alloc_bytes(known.plan.workspace_bytes)?;
        if stream.is_dry_run() {
            return Ok(());
        }
        stream.bind()?;
        // SAFETY: by the caller's promise; the workspace has the size that the plan requires.
        unsafe { self.execute(&known.plan, operands, workspace.pointer()) }
    }

    /// The engines that autotuning chose: convolution, engine index and microseconds.
    pub(super) fn describe_choices(&self) -> Vec<(String, usize, f64)> {
        let choices = self.choices.lock().unwrap_or_else(PoisonError::into_inner).describe();
        choices.into_iter().map(|(name, choice)| (name, choice.engine_index, choice.microseconds)).collect()
    }

    /// # Safety
    /// As [`Cudnn::run`].
    unsafe fn find(
        &self,
        stream: &Stream,
        key: ConvolutionKey,
        operands: ConvolutionOperands,
        timing: bool,
    ) -> Result<Known> {
        let mut choices = self.choices.lock().unwrap_or_else(PoisonError::into_inner);
        let handle = self.lock_handle();
        let target = Target::Handle(*handle);
        let graph = key.graph(Element::of(self.precision), target.handle())?;
        let engines = plan::candidates(&graph, self.precision, self.engines, &target)?;
        if let Some(choice) = choices.get(&key)
            && let Some(Ok(plan)) =
                engines.get(choice.engine_index).map(|engine| Plan::new(engine, choice.engine_index, &target))
        {
            return Ok(Known { plan, chosen: true, uses: AtomicUsize::new(0) });
        }
        let (start, mut plans, mut last) = (Instant::now(), Vec::new(), None);
        for (engine_index, engine) in engines.iter().enumerate() {
            match Plan::new(engine, engine_index, &target) {
                Ok(plan) => plans.push(plan),
                Err(e) => last = Some(e),
            }
            let enough = plans.len() >= TIMED || start.elapsed() > PLANNING_TIME || !timing;
            if enough && !plans.is_empty() {
                break;
            }
        }
        let Some(first) = plans.first() else {
            let reason = last.map_or_else(|| "cuDNN has no engine for it".to_owned(), |e| e.to_string());
            return Err(Error::Cuda { call: "cuDNN", reason: format!("{key:?}: {reason}") });
        };
        if !timing {
            return Ok(Known { plan: plans.swap_remove(0), chosen: false, uses: AtomicUsize::new(0) });
        }
        // `fastest` locks the handle for each execution.
        drop(handle);
        let most = first.workspace_bytes.max(MOST_WORKSPACE_BYTES);
        plans.retain(|plan| plan.workspace_bytes <= most);
        // SAFETY: by the caller's promise.
        let (i, seconds) = unsafe { self.fastest(stream, &plans, operands) }.map_err(|why| {
            let reason = format!("{key:?}: every engine failed; the first error: {why}");
            Error::Cuda { call: "cudnnBackendExecute", reason }
        })?;
        let plan = plans.swap_remove(i);
        choices.insert(&key, Choice { engine_index: plan.engine_index, microseconds: seconds * 1e6 });
        Ok(Known { plan, chosen: true, uses: AtomicUsize::new(0) })
    }

    /// Index of the fastest plan, and its time in seconds. Times all plans in turn, then the plans near the
    /// fastest again in alternation, because clock rates change meanwhile. If no plan runs, fails with the
    /// first error.
    ///
    /// # Safety
    /// As [`Cudnn::run`], and the plans must be for these operands.
    unsafe fn fastest(
        &self,
        stream: &Stream,
        plans: &[Plan],
        operands: ConvolutionOperands,
    ) -> std::result::Result<(usize, f64), String> {
        let mut timed: Vec<(usize, f64)> = Vec::new();
        let mut why = None;
        for (i, plan) in plans.iter().enumerate() {
            let least = timed.iter().map(|(_, seconds)| *seconds).fold(f64::INFINITY, f64::min);
            // An engine that fails although it claims to support the graph is skipped.
            // SAFETY: by the caller's promise.
            match unsafe { self.time(stream, plan, operands, least) } {
                Ok(seconds) => timed.push((i, seconds)),
                Err(e) => why = why.or(Some(e.to_string())),
            }
        }
        timed.sort_by(|a, b| a.1.total_cmp(&b.1));
        let Some(&(_, least)) = timed.first() else { return Err(why.unwrap_or_default()) };
        timed.retain(|(_, seconds)| *seconds <= NEAR * least);
        for _ in 0..ROUNDS {
            for (i, seconds) in &mut timed {
                // SAFETY: as above.
                if let Ok(again) = unsafe { self.time(stream, &plans[*i], operands, least) } {
                    *seconds = seconds.min(again);
                }
            }
        }
        timed.into_iter().min_by(|a, b| a.1.total_cmp(&b.1)).ok_or_else(|| why.unwrap_or_default())
    }

    /// Seconds per execution. Each execution overwrites the result of the previous one. A plan that is much
    /// slower than `least` runs once.
    ///
    /// # Safety
    /// As [`Cudnn::fastest`].
    unsafe fn time(
        &self,
        stream: &Stream,
        plan: &Plan,
        operands: ConvolutionOperands,
        least: f64,
    ) -> Result<f64> {
        let workspace = stream.alloc_bytes(plan.workspace_bytes)?;
        let run = |times: usize| -> Result<Duration> {
            stream.synchronize()?;
            let start = Instant::now();
            // SAFETY: by the caller's promise; the workspace has the size that the plan requires.
            (0..times).try_for_each(|_| unsafe { self.execute(plan, operands, workspace.pointer()) })?;
            stream.synchronize()?;
            Ok(start.elapsed())
        };
        let first = run(1)?.max(Duration::from_micros(1));
        if first.as_secs_f64() > HOPELESS * least {
            return Ok(first.as_secs_f64());
        }
        let times = (TIMING.as_nanos() / first.as_nanos()).clamp(1, MOST_REPETITIONS as u128) as usize;
        Ok(run(times)?.as_secs_f64() / times as f64)
    }

    fn lock_handle(&self) -> MutexGuard<'_, sys::cudnnHandle_t> {
        self.handle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The device properties in cuDNN's JSON format.
    pub(super) fn device_properties(&self) -> Result<String> {
        let name = Name::CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION;
        let handle = self.lock_handle();
        let properties = Descriptor::new(Kind::CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR)?
            .handle(Name::CUDNN_ATTR_DEVICEPROP_HANDLE, &handle)?
            .finish()?;
        let mut text = vec![0u8; properties.count::<u8>(name)?];
        let count = properties.get(name, &mut text)?;
        text.truncate(count);
        text.retain(|byte| *byte != 0);
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    /// # Safety
    /// Operands and workspace must be device memory with the sizes in the plan's graph.
    unsafe fn execute(
        &self,
        plan: &Plan,
        operands: ConvolutionOperands,
        workspace: CUdeviceptr,
    ) -> Result<()> {
        let all = [(X, operands.x), (W, operands.w), (Y, operands.y), (BIAS, operands.bias)];
        let used: Vec<(i64, CUdeviceptr)> = all.into_iter().filter(|(_, pointer)| *pointer != 0).collect();
        let numbers: Vec<i64> = used.iter().map(|(number, _)| *number).collect();
        let pointers: Vec<*mut c_void> = used.iter().map(|(_, pointer)| *pointer as *mut c_void).collect();
        let pack = Descriptor::new(Kind::CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR)?
            .set(Name::CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, &pointers)?
            .integers(Name::CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, &numbers)?
            .set(Name::CUDNN_ATTR_VARIANT_PACK_WORKSPACE, &[workspace as *mut c_void])?
            .finish()?;
        let handle = self.lock_handle();
        // SAFETY: by the caller's promise; plan and pack are finished descriptors.
        let status = unsafe { sys::cudnnBackendExecute(*handle, plan.descriptor.raw(), pack.raw()) };
        check("cudnnBackendExecute", status)
    }
}

impl Drop for Cudnn {
    fn drop(&mut self) {
        // SAFETY: nothing uses the handle after this; on failure it is leaked until the process exits.
        let _ = unsafe { result::destroy_handle(*self.lock_handle()) };
    }
}
