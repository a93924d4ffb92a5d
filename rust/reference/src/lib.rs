//! The slow truth: one short file per operator family, straight from the definition, sums carried in f64. Its rows
//! stand last in every CPU table, so that selection never fails, and first in every test.
#![forbid(unsafe_code)]

pub mod branches;
pub mod causal;
pub mod channel_sum;
pub mod conv;
pub mod copy;
pub mod dcls;
pub mod delays;
pub mod fft_conv;
pub mod filter_planes;
pub mod pool;

use striate_core::{Arguments, DType, Operation, Pool, Request, Why};

/// The last row of an operation; files say what differs.
const fn definition(
    op: &'static str,
    name: &'static str,
    supports: fn(&Request<'_>) -> Result<(), Why>,
    run: fn(&Request<'_>, Arguments<'_>, &dyn Pool),
) -> Operation {
    Operation {
        name,
        op,
        dtypes: &DType::ALL,
        isa: "portable",
        available: || true,
        supports,
        work: |_| 0.0,
        workspace: |_, _| 0,
        run,
        note: "the definition, sums in f64",
    }
}

/// The definitions of the operations other than convolution.
pub static OPERATIONS: &[Operation] = &[
    branches::ROW,
    channel_sum::ROW,
    copy::ROW,
    dcls::KERNEL,
    dcls::GRADIENT,
    delays::ROW,
    causal::CAUSAL,
    causal::UPDATE,
    pool::POOL,
    pool::ARGMAX,
    pool::GATHER,
    pool::SCATTER,
    fft_conv::CONV,
    fft_conv::GRAD_KERNEL,
    filter_planes::FILTER,
    filter_planes::GRAD,
];
