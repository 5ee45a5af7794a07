//! Row-major matrix products by cuBLASLt, with fused bias and ReLU. The algorithm of each shape is selected
//! once.

use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::{Mutex, PoisonError};

use cudarc::cublaslt::result::{self, CublasError};
use cudarc::cublaslt::sys;
use cudarc::driver::sys::CUdeviceptr;

use super::stream::Stream;
use super::{CublasEpilogue, Element, Matrix, Product};
use crate::{Error, Precision, Result};

/// Workspace available to an algorithm, in bytes: the size that NVIDIA recommends for Hopper.
const WORKSPACE_BYTES: usize = 32 << 20;

/// Alignment of all operands, in bytes.
const ALIGNMENT_BYTES: u32 = 16;
const ALIGNMENTS: [sys::cublasLtMatmulPreferenceAttributes_t; 4] = [
    sys::cublasLtMatmulPreferenceAttributes_t::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES,
    sys::cublasLtMatmulPreferenceAttributes_t::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
    sys::cublasLtMatmulPreferenceAttributes_t::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES,
    sys::cublasLtMatmulPreferenceAttributes_t::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES,
];

pub(super) struct Blas {
    handle: sys::cublasLtHandle_t,
    compute: sys::cublasComputeType_t,
    algorithms: Mutex<HashMap<Key, sys::cublasLtMatmulAlgo_t>>,
}

// SAFETY: calls do not change the state of a cuBLASLt handle.
unsafe impl Send for Blas {}
// SAFETY: as above.
unsafe impl Sync for Blas {}

type Key = ([(usize, usize, usize, bool, usize); 3], CublasEpilogue);

fn error(call: &'static str) -> impl Fn(CublasError) -> Error {
    move |e| Error::Cuda { call, reason: format!("{:?}", e.0) }
}

impl Blas {
    pub(super) fn new(precision: Precision) -> Result<Blas> {
        let compute = match precision {
            Precision::Tf32 => sys::cublasComputeType_t::CUBLAS_COMPUTE_32F_FAST_TF32,
            Precision::Bf16 | Precision::F32 => sys::cublasComputeType_t::CUBLAS_COMPUTE_32F,
        };
        let handle = result::create_handle().map_err(error("cublasLtCreate"))?;
        Ok(Blas { handle, compute, algorithms: Mutex::default() })
    }

    /// # Safety
    /// Matrices and bias must be device memory with the sizes and element types in `product`.
    pub(super) unsafe fn run(&self, stream: &Stream, product: &Product) -> Result<()> {
        let Product { a, b, out, epilogue, bias } = product;
        let workspace = stream.alloc_bytes(WORKSPACE_BYTES)?;
        if stream.is_dry_run() {
            return Ok(());
        }
        stream.bind()?;
        // A row-major matrix is its transpose in column-major order, so b comes first: out^T = b^T a^T.
        let operation = Operation::new(self.compute, b, a, *epilogue, *bias)?;
        let [layout_b, layout_a, layout_out] = [Layout::new(b)?, Layout::new(a)?, Layout::new(out)?];
        let layouts = [layout_b.0, layout_a.0, layout_out.0];
        let key =
            ([a, b, out].map(|m| (m.rows, m.columns, m.pitch, m.transposed, m.element.bytes())), *epilogue);
        let algorithm = self.algorithm(key, &operation, layouts)?;
        let (alpha, beta) = (1.0f32, if *epilogue == CublasEpilogue::Add { 1.0f32 } else { 0.0 });
        // SAFETY: by the caller's promise; descriptors live until the call returns, and the stream runs uses
        // of the memory in order.
        unsafe {
            result::matmul(
                self.handle,
                operation.0,
                std::ptr::from_ref(&alpha).cast(),
                std::ptr::from_ref(&beta).cast(),
                b.pointer as *const c_void,
                layouts[0],
                a.pointer as *const c_void,
                layouts[1],
                out.pointer as *const c_void,
                layouts[2],
                out.pointer as *mut c_void,
                layouts[2],
                std::ptr::from_ref(&algorithm),
                workspace.pointer() as *mut c_void,
                WORKSPACE_BYTES,
                stream.raw().cast(),
            )
        }
        .map_err(error("cublasLtMatmul"))
    }

    /// The algorithm that cuBLASLt's heuristic ranks first.
    fn algorithm(
        &self,
        key: Key,
        operation: &Operation,
        [b, a, out]: [sys::cublasLtMatrixLayout_t; 3],
    ) -> Result<sys::cublasLtMatmulAlgo_t> {
        let mut known = self.algorithms.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(algorithm) = known.get(&key) {
            return Ok(*algorithm);
        }
        let preference = result::create_matmul_pref().map_err(error("cublasLtMatmulPreferenceCreate"))?;
        let bytes = WORKSPACE_BYTES;
        // SAFETY: the attribute is a size; descriptors live until the call returns.
        let found = unsafe {
            let attribute =
                sys::cublasLtMatmulPreferenceAttributes_t::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES;
            let value = std::ptr::from_ref(&bytes).cast();
            let set = result::set_matmul_pref_attribute(preference, attribute, value, size_of::<usize>());
            // Rows are multiples of 16 bytes, so a view that starts at any row is aligned as well.
            let set = ALIGNMENTS.into_iter().fold(set, |set, attribute| {
                let value = std::ptr::from_ref(&ALIGNMENT_BYTES).cast();
                set.and_then(|()| {
                    result::set_matmul_pref_attribute(preference, attribute, value, size_of::<u32>())
                })
            });
            let found = set.and_then(|()| {
                result::get_matmul_algo_heuristic(self.handle, operation.0, b, a, out, out, preference)
            });
            let _ = result::destroy_matmul_pref(preference);
            found.map_err(error("cublasLtMatmulAlgoGetHeuristic"))?
        };
        known.insert(key, found.algo);
        Ok(found.algo)
    }
}

impl Drop for Blas {
    fn drop(&mut self) {
        // SAFETY: nothing uses the handle after this; on failure it is leaked until the process exits.
        let _ = unsafe { result::destroy_handle(self.handle) };
    }
}

/// A layout descriptor: a row-major matrix is a column-major one with rows and columns swapped.
struct Layout(sys::cublasLtMatrixLayout_t);

impl Layout {
    fn new(m: &Matrix) -> Result<Layout> {
        let (rows, columns, pitch) = (m.columns as u64, m.rows as u64, m.pitch as i64);
        let layout = result::create_matrix_layout(data_type(m.element), rows, columns, pitch);
        layout.map(Layout).map_err(error("cublasLtMatrixLayoutCreate"))
    }
}

impl Drop for Layout {
    fn drop(&mut self) {
        // SAFETY: created in `new`, destroyed once.
        let _ = unsafe { result::destroy_matrix_layout(self.0) };
    }
}

/// A matmul descriptor.
struct Operation(sys::cublasLtMatmulDesc_t);

impl Operation {
    fn new(
        compute: sys::cublasComputeType_t,
        first: &Matrix,
        second: &Matrix,
        epilogue: CublasEpilogue,
        bias: CUdeviceptr,
    ) -> Result<Operation> {
        use sys::cublasLtMatmulDescAttributes_t as Attribute;
        let made = result::create_matmul_desc(compute, sys::cudaDataType_t::CUDA_R_32F);
        let operation = Operation(made.map_err(error("cublasLtMatmulDescCreate"))?);
        // SAFETY: the transpose attributes are 32-bit integers, the epilogue is a value of its enumeration,
        // and the bias is a device pointer.
        unsafe {
            operation.set(Attribute::CUBLASLT_MATMUL_DESC_TRANSA, i32::from(first.transposed))?;
            operation.set(Attribute::CUBLASLT_MATMUL_DESC_TRANSB, i32::from(second.transposed))?;
            if epilogue == CublasEpilogue::BiasRelu {
                let kind = sys::cublasLtEpilogue_t::CUBLASLT_EPILOGUE_RELU_BIAS;
                operation.set(Attribute::CUBLASLT_MATMUL_DESC_EPILOGUE, kind)?;
                operation.set(Attribute::CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias)?;
            }
        }
        Ok(operation)
    }

    /// # Safety
    /// `V` must be the type of the attribute.
    unsafe fn set<V>(&self, attribute: sys::cublasLtMatmulDescAttributes_t, value: V) -> Result<()> {
        // SAFETY: by the caller's promise; cuBLASLt copies the value.
        unsafe {
            result::set_matmul_desc_attribute(
                self.0,
                attribute,
                std::ptr::from_ref(&value).cast(),
                size_of::<V>(),
            )
        }
        .map_err(error("cublasLtMatmulDescSetAttribute"))
    }
}

impl Drop for Operation {
    fn drop(&mut self) {
        // SAFETY: created in `new`, destroyed once.
        let _ = unsafe { result::destroy_matmul_desc(self.0) };
    }
}

fn data_type(element: Element) -> sys::cudaDataType {
    match element {
        Element::F32 => sys::cudaDataType_t::CUDA_R_32F,
        Element::Bf16 => sys::cudaDataType_t::CUDA_R_16BF,
    }
}
