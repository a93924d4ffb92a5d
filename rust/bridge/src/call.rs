//! Operations that are not convolutions, called from Python with the addresses, sizes and strides of their tensors.

use crate::launch::{Failure, guarded, lend_from_heap};
use crate::listen::{Heard, tell};
use crate::memory::expect_writes;
use crate::own_pool::OwnPool;
use crate::planning::alone;
use crate::torch::lend_from_torch;
use crate::torch_pool::with_pool;
use crate::torch_stable::loaded;
use pyo3::prelude::*;
use striate_core::{Arguments, DType, Pool, Request, Settings, Signature, Tensor, TensorMut};
use striate_plan::Chosen;

/// Address, element type, sizes and strides of a tensor.
pub type Given = (usize, String, Vec<i64>, Vec<i64>);

/// The tensors of a call: what is read, what is written, and where each begins.
pub struct Tensors {
    operands: Vec<Option<Signature>>,
    results: Vec<Signature>,
    /// Addresses of the operands, 0 for a missing one.
    pub reads: Vec<usize>,
    /// Addresses of the results.
    pub writes: Vec<usize>,
}

fn signature(name: &str, index: usize, (address, dtype, sizes, strides): &Given) -> Result<Signature, String> {
    let about = |why: String| format!("{name} {index}: {why}");
    let known = DType::ALL.into_iter().chain([DType::I32, DType::I64]).find(|known| known.name() == dtype);
    let dtype = known.ok_or_else(|| about(format!("expected f32, f64, bf16, f16, i32 or i64, got {dtype:?}")))?;
    let made = Signature::new(dtype, sizes, strides).map_err(about)?;
    if made.elements() > 0 && (*address == 0 || !address.is_multiple_of(dtype.size())) {
        return Err(about(format!("expected the address of {}-byte numbers, got {address:#x}", dtype.size())));
    }
    Ok(made)
}

impl Tensors {
    /// Of tensors as Python describes them.
    pub fn new(operands: &[Option<Given>], results: &[Given]) -> Result<Tensors, String> {
        let each = |(index, given): (usize, &Option<Given>)| {
            given.as_ref().map(|given| signature("operand", index, given)).transpose()
        };
        Ok(Tensors {
            operands: operands.iter().enumerate().map(each).collect::<Result<_, _>>()?,
            results: results
                .iter()
                .enumerate()
                .map(|(index, given)| signature("result", index, given))
                .collect::<Result<_, _>>()?,
            reads: operands.iter().map(|given| given.as_ref().map_or(0, |given| given.0)).collect(),
            writes: results.iter().map(|given| given.0).collect(),
        })
    }

    /// What is asked of them.
    pub fn request<'a>(&'a self, op: &'a str, settings: &'a str) -> Request<'a> {
        Request { op, settings: Settings(settings), operands: &self.operands, results: &self.results }
    }

    /// # Safety
    /// The addresses must be those of live tensors of the stated sizes, strides and types; nobody writes what is
    /// read, or touches what is written, during the call.
    unsafe fn arguments<'a>(&self, workspace: &'a mut [u8]) -> Arguments<'a> {
        // SAFETY: the caller's promise is this function's contract.
        unsafe {
            Arguments {
                operands: self
                    .operands
                    .iter()
                    .zip(&self.reads)
                    .map(|(known, &at)| known.map(|s| Tensor::from_raw(at, s.dtype, s.dims, s.strides)))
                    .collect(),
                results: self
                    .results
                    .iter()
                    .zip(&self.writes)
                    .map(|(s, &at)| TensorMut::from_raw(at, s.dtype, s.dims, s.strides))
                    .collect(),
                workspace,
            }
        }
    }
}

fn choose(request: &Request<'_>) -> Result<Chosen, Failure> {
    let chosen = {
        let _alone = alone();
        striate_plan::operation(request).map_err(Failure::Input)?
    };
    tell(|| Heard::operation(request, &chosen));
    Ok(chosen)
}

/// Runs an operation on tensors of `(address, dtype, sizes, strides)`, the caller answers for them, and returns the
/// name of the row that ran. The GIL is released. `workers` counts where torch's threads are not at hand.
#[pyfunction]
#[allow(clippy::needless_pass_by_value)] // Extracted from Python as owned values.
pub fn call(
    py: Python<'_>,
    op: &str,
    settings: &str,
    operands: Vec<Option<Given>>,
    results: Vec<Given>,
    workers: usize,
) -> PyResult<&'static str> {
    Ok(py.detach(|| {
        guarded(|| {
            let tensors = Tensors::new(&operands, &results).map_err(Failure::Input)?;
            let request = tensors.request(op, settings);
            let row = choose(&request)?.row;
            for (result, &at) in tensors.results.iter().zip(&tensors.writes) {
                expect_writes(at, result.elements() * result.dtype.size());
            }
            let run = |pool: &dyn Pool| {
                let bytes = (row.workspace)(&request, pool.width());
                let mut run = |workspace: &mut [u8]| {
                    // SAFETY: that the tensors are what is said of them is the duty of the Python caller.
                    (row.run)(&request, unsafe { tensors.arguments(workspace) }, pool);
                };
                match bytes {
                    0 => run(&mut []),
                    _ if loaded().is_some() => return lend_from_torch(bytes, &mut run),
                    _ => return lend_from_heap(bytes, &mut run),
                }
                Ok(())
            };
            match loaded() {
                Some(shim) => with_pool(shim, (row.work)(&request), run),
                None => run(&OwnPool::new(workers)),
            }
            .map_err(|why| Failure::Run(format!("{why} [{request}]")))?;
            Ok(row.name)
        })
    })?)
}
