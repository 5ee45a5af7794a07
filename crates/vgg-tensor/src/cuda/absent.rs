//! Uninhabited stand-ins for the CUDA types in builds without the feature `cuda`: GPU code compiles and is
//! never run.

use std::convert::Infallible;

use super::{ConvolutionKey, ConvolutionOperands, Element, Format, Product};
use crate::{DeviceConfig, Error, PeakThroughput, Precision, Result, Shape};

/// A GPU.
#[derive(Clone)]
pub(crate) struct Cuda(Infallible);

/// Memory of a GPU.
pub(crate) struct CudaBuffer(Infallible);

/// A host-to-device copy.
pub(crate) struct HostToDevice(Infallible);

/// A device-to-host copy.
pub(crate) struct DeviceToHost(Infallible);

/// The guard of autotuning.
pub(crate) struct Autotuning(Infallible);

/// A captured graph.
pub(crate) struct Graph(Infallible);

fn absent<T>() -> Result<T> {
    Err(Error::NoCuda { reason: "this program was built without the Cargo feature `cuda`".into() })
}

pub(crate) fn measure(cuda: &Cuda) -> Result<PeakThroughput> {
    match cuda.0 {}
}

impl Cuda {
    pub(crate) fn count() -> Result<usize> {
        absent()
    }

    pub(crate) fn open(_: usize, _: &DeviceConfig) -> Result<Cuda> {
        absent()
    }

    pub(crate) fn precision(&self) -> Precision {
        match self.0 {}
    }

    pub(crate) fn dry_run(&self) -> Result<Cuda> {
        match self.0 {}
    }

    pub(crate) fn is_dry_run(&self) -> bool {
        match self.0 {}
    }

    pub(crate) fn numerics(&self) -> String {
        match self.0 {}
    }

    pub(crate) fn free_bytes(&self) -> Result<usize> {
        match self.0 {}
    }

    pub(crate) fn describe(&self) -> String {
        match self.0 {}
    }

    pub(crate) fn memory_usage_bytes(&self) -> (usize, usize) {
        match self.0 {}
    }

    pub(crate) fn poison_free_memory(&self) -> Result<()> {
        match self.0 {}
    }

    pub(crate) fn element(&self) -> Element {
        match self.0 {}
    }

    pub(crate) fn activation(&self, _: usize) -> Format {
        match self.0 {}
    }

    pub(crate) fn alloc(&self, _: Shape, _: Format) -> Result<CudaBuffer> {
        match self.0 {}
    }

    pub(crate) fn take_plain(&self, _: Shape) -> Result<CudaBuffer> {
        match self.0 {}
    }

    pub(crate) fn alloc_bytes(&self, _: usize) -> Result<CudaBuffer> {
        match self.0 {}
    }

    pub(crate) fn shares_memory_with(&self, _: &Cuda) -> bool {
        match self.0 {}
    }

    pub(crate) fn autotuning(&self) -> Autotuning {
        match self.0 {}
    }

    pub(crate) unsafe fn convolution(&self, _: ConvolutionKey, _: ConvolutionOperands) -> Result<()> {
        match self.0 {}
    }

    pub(crate) fn describe_choices(&self) -> Vec<(String, usize, f64)> {
        match self.0 {}
    }

    pub(crate) fn device_properties(&self) -> Result<String> {
        match self.0 {}
    }

    pub(crate) unsafe fn launch(&self, _: &'static str, _: usize, _: &[u64]) -> Result<()> {
        match self.0 {}
    }

    pub(crate) unsafe fn launch_blocks(&self, _: &'static str, _: [usize; 2], _: &[u64]) -> Result<()> {
        match self.0 {}
    }

    pub(crate) unsafe fn product(&self, _: &Product) -> Result<()> {
        match self.0 {}
    }

    pub(crate) fn upload<V: Copy>(&self, _: &[V], _: &CudaBuffer) -> Result<()> {
        match self.0 {}
    }

    pub(crate) unsafe fn download<V: Copy>(&self, _: u64, _: &mut [V]) -> Result<()> {
        match self.0 {}
    }

    pub(crate) unsafe fn copy(&self, _: u64, _: u64, _: usize) -> Result<()> {
        match self.0 {}
    }

    pub(crate) fn clear(&self, _: &CudaBuffer) -> Result<()> {
        match self.0 {}
    }

    pub(crate) fn synchronize(&self) -> Result<()> {
        match self.0 {}
    }

    pub(crate) fn capture<E>(
        &self,
        _: impl FnOnce() -> std::result::Result<(), E>,
    ) -> std::result::Result<Graph, E> {
        match self.0 {}
    }
}

impl CudaBuffer {
    pub(crate) fn pointer(&self) -> u64 {
        match self.0 {}
    }

    pub(crate) fn format(&self) -> Format {
        match self.0 {}
    }
}

impl Graph {
    pub(crate) fn cuda(&self) -> &Cuda {
        match self.0 {}
    }

    pub(crate) fn launch(&self) -> Result<()> {
        match self.0 {}
    }
}

impl HostToDevice {
    pub(crate) fn new(cuda: &Cuda, _: usize) -> Result<HostToDevice> {
        match cuda.0 {}
    }

    pub(crate) fn pointer(&self) -> u64 {
        match self.0 {}
    }

    pub(crate) fn fill(&mut self, _: impl FnOnce(&mut [u8])) -> Result<()> {
        match self.0 {}
    }
}

impl DeviceToHost {
    pub(crate) fn new(cuda: &Cuda, _: usize) -> Result<DeviceToHost> {
        match cuda.0 {}
    }

    pub(crate) fn len(&self) -> usize {
        match self.0 {}
    }

    pub(crate) unsafe fn start(&mut self, _: impl Iterator<Item = (u64, usize)>) -> Result<()> {
        match self.0 {}
    }

    pub(crate) fn wait(&self) -> Result<&[u8]> {
        match self.0 {}
    }
}
