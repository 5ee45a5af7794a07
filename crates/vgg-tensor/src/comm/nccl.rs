//! NCCL all-reduce between GPUs, on a stream of its own.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::sync::{Arc, OnceLock};

use cudarc::driver::{CudaEvent, CudaStream};
use cudarc::nccl::sys::{ncclComm_t, ncclDataType_t, ncclRedOp_t, ncclResult_t, ncclUniqueId};

use super::group::ProcessGroup;
use crate::cuda::{Cuda, cuda_error, open_nccl};
use crate::{Error, Result};

/// The NCCL communicator of a process group. All ranks must make the same calls in the same order.
pub(crate) struct Communicator {
    cuda: Cuda,
    nccl: &'static Functions,
    ranks: ncclComm_t,
    stream: Arc<CudaStream>,
    /// Events on the device's stream, before an all-reduce, and on this stream, after it.
    computed: CudaEvent,
    summed: CudaEvent,
}

// SAFETY: NCCL may be called from any thread, by one at a time, and this is not `Sync`.
unsafe impl Send for Communicator {}

impl Communicator {
    /// Creates the communicator. The group's own transport distributes rank 0's NCCL id.
    pub(crate) fn join(group: &dyn ProcessGroup, cuda: &Cuda) -> Result<Communicator> {
        let nccl = Functions::get().map_err(|reason| Error::NoCuda { reason })?;
        let mut id = ncclUniqueId { internal: [0; 128] };
        if group.rank() == 0 {
            // SAFETY: the pointer is valid.
            nccl.check("ncclGetUniqueId", unsafe { (nccl.get_unique_id)(&mut id) })?;
        }
        let all = group.all_gather_bytes(&id.internal.map(|byte| byte as u8))?;
        id.internal.iter_mut().zip(&all[0]).for_each(|(byte, first)| *byte = *first as c_char);
        cuda.bind()?;
        let context = cuda.context();
        let event = || context.new_event(None).map_err(cuda_error("cuEventCreate"));
        let (computed, summed) = (event()?, event()?);
        let stream = context.new_stream().map_err(cuda_error("cuStreamCreate"))?;
        let mut ranks = std::ptr::null_mut();
        // SAFETY: the pointer is valid; all ranks pass the same id and different ranks.
        let joined =
            unsafe { (nccl.comm_init_rank)(&mut ranks, group.size() as i32, id, group.rank() as i32) };
        nccl.check("ncclCommInitRank", joined)?;
        Ok(Communicator { cuda: cuda.clone(), nccl, ranks, stream, computed, summed })
    }

    /// Queues the all-reduce (sum) of these `(address, length)` values, after the work queued on the device's
    /// stream.
    ///
    /// # Safety
    /// Each must be memory of this device of that many floats, which nothing else uses before
    /// [`Communicator::wait`].
    pub(crate) unsafe fn all_reduce_sum(&self, places: &[(u64, usize)]) -> Result<()> {
        if places.is_empty() {
            return Ok(());
        }
        self.after_computing()?;
        // One NCCL group, so that many small tensors take one launch.
        // SAFETY: it takes nothing.
        self.nccl.check("ncclGroupStart", unsafe { (self.nccl.group_start)() })?;
        let added = places.iter().try_for_each(|&(at, len)| {
            // SAFETY: by the caller's promise.
            unsafe { self.all_reduce(at, len, ncclDataType_t::ncclFloat32, ncclRedOp_t::ncclSum) }
        });
        // A group that was started must be ended in any case.
        // SAFETY: as above.
        let ended = self.nccl.check("ncclGroupEnd", unsafe { (self.nccl.group_end)() });
        added.and(ended)
    }

    /// Queues the all-reduce (maximum) of a 32-bit flag.
    ///
    /// # Safety
    /// It must be memory of this device that nothing else uses before [`Communicator::wait`].
    pub(crate) unsafe fn all_reduce_or(&self, flag: u64) -> Result<()> {
        self.after_computing()?;
        // SAFETY: by the caller's promise.
        unsafe { self.all_reduce(flag, 1, ncclDataType_t::ncclUint32, ncclRedOp_t::ncclMax) }
    }

    /// Makes the device's stream wait for all queued all-reduces.
    pub(crate) fn wait(&self) -> Result<()> {
        self.summed.record(&self.stream).map_err(cuda_error("cuEventRecord"))?;
        self.cuda.main_stream().wait(&self.summed).map_err(cuda_error("cuStreamWaitEvent"))
    }

    fn after_computing(&self) -> Result<()> {
        self.cuda.bind()?;
        self.computed.record(self.cuda.main_stream()).map_err(cuda_error("cuEventRecord"))?;
        self.stream.wait(&self.computed).map_err(cuda_error("cuStreamWaitEvent"))
    }

    /// # Safety
    /// There must be memory of this device of `len` values, which nothing else uses before
    /// [`Communicator::wait`].
    unsafe fn all_reduce(&self, at: u64, len: usize, kind: ncclDataType_t, op: ncclRedOp_t) -> Result<()> {
        let stream: *mut c_void = self.stream.cu_stream().cast();
        // SAFETY: by the caller's promise.
        let begun = unsafe {
            (self.nccl.all_reduce)(at as *const c_void, at as *mut c_void, len, kind, op, self.ranks, stream)
        };
        self.nccl.check("ncclAllReduce", begun)
    }
}

impl Drop for Communicator {
    fn drop(&mut self) {
        // Not ncclCommDestroy, which waits for the other ranks, one of which may be gone. In a run that
        // succeeds, the ranks have communicated after their last all-reduce.
        // SAFETY: it was made in `join`.
        unsafe { (self.nccl.comm_abort)(self.ranks) };
    }
}

type Call<A> = unsafe extern "C" fn(A) -> ncclResult_t;

/// The functions of NCCL 2 that are called.
struct Functions {
    get_unique_id: Call<*mut ncclUniqueId>,
    comm_init_rank: unsafe extern "C" fn(*mut ncclComm_t, c_int, ncclUniqueId, c_int) -> ncclResult_t,
    all_reduce: unsafe extern "C" fn(
        *const c_void,
        *mut c_void,
        usize,
        ncclDataType_t,
        ncclRedOp_t,
        ncclComm_t,
        *mut c_void,
    ) -> ncclResult_t,
    group_start: unsafe extern "C" fn() -> ncclResult_t,
    group_end: unsafe extern "C" fn() -> ncclResult_t,
    comm_abort: Call<ncclComm_t>,
    error_string: unsafe extern "C" fn(ncclResult_t) -> *const c_char,
    last_error: unsafe extern "C" fn(ncclComm_t) -> *const c_char,
}

impl Functions {
    fn get() -> std::result::Result<&'static Functions, String> {
        static ALL: OnceLock<std::result::Result<Functions, String>> = OnceLock::new();
        ALL.get_or_init(Functions::find).as_ref().map_err(Clone::clone)
    }

    fn find() -> std::result::Result<Functions, String> {
        let opened = open_nccl()?;
        // SAFETY: the functions have these signatures in all of NCCL 2 since 2.13.
        let functions = unsafe {
            let missing = |e: libloading::Error| format!("NCCL is too old, 2.13 or newer is needed: {e}");
            Functions {
                get_unique_id: *opened.get(b"ncclGetUniqueId\0").map_err(missing)?,
                comm_init_rank: *opened.get(b"ncclCommInitRank\0").map_err(missing)?,
                all_reduce: *opened.get(b"ncclAllReduce\0").map_err(missing)?,
                group_start: *opened.get(b"ncclGroupStart\0").map_err(missing)?,
                group_end: *opened.get(b"ncclGroupEnd\0").map_err(missing)?,
                comm_abort: *opened.get(b"ncclCommAbort\0").map_err(missing)?,
                error_string: *opened.get(b"ncclGetErrorString\0").map_err(missing)?,
                last_error: *opened.get(b"ncclGetLastError\0").map_err(missing)?,
            }
        };
        // The library stays loaded until the program exits.
        std::mem::forget(opened);
        Ok(functions)
    }

    /// Turns a failure into an error with the call's name and NCCL's messages.
    fn check(&self, call: &'static str, result: ncclResult_t) -> Result<()> {
        if result == ncclResult_t::ncclSuccess {
            return Ok(());
        }
        // SAFETY: both return strings that live forever, or null; no communicator is needed.
        let texts = unsafe { [(self.error_string)(result), (self.last_error)(std::ptr::null_mut())] };
        let texts = texts.iter().filter(|text| !text.is_null()).map(|text| {
            // SAFETY: as above.
            unsafe { CStr::from_ptr(*text) }.to_string_lossy().trim().to_owned()
        });
        let reason = texts.filter(|text| !text.is_empty()).collect::<Vec<_>>().join(": ");
        Err(Error::Cuda { call, reason: format!("{reason}; set NCCL_DEBUG=INFO for details") })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cuda::{CudaLibrary, cuda_libraries};

    /// This also runs without a GPU, because `ncclGetUniqueId` needs none.
    #[test]
    fn nccl_has_the_required_functions() {
        let nccl = cuda_libraries().iter().find(|status| status.library == CudaLibrary::Nccl);
        if let Some(Err(e)) = nccl.map(|status| &status.found) {
            vgg_testkit::skip("nccl", e);
            return;
        }
        let nccl = Functions::get().unwrap();
        let mut id = ncclUniqueId { internal: [0; 128] };
        // SAFETY: the pointer is valid.
        nccl.check("ncclGetUniqueId", unsafe { (nccl.get_unique_id)(&mut id) }).unwrap();
        assert!(id.internal.iter().any(|byte| *byte != 0));
        let error = nccl.check("ncclAllReduce", ncclResult_t::ncclInvalidArgument).unwrap_err().to_string();
        assert!(error.contains("ncclAllReduce") && error.contains("invalid argument"), "{error}");
    }
}
