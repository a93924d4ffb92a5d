//! The slow truth: one short file per operator family, straight from the definition, sums carried in f64. Its rows
//! stand last in every CPU table, so that selection never fails, and first in every test.
#![forbid(unsafe_code)]

pub mod causal;
pub mod channel_sum;
pub mod conv;
pub mod copy;
pub mod dcls;
pub mod fft_conv;
pub mod pool;

use striate_core::Operation;

/// The definitions of the operations other than convolution.
pub static OPERATIONS: &[Operation] = &[
    channel_sum::ROW,
    copy::ROW,
    dcls::KERNEL,
    dcls::GRADIENT,
    causal::CAUSAL,
    causal::UPDATE,
    pool::POOL,
    pool::ARGMAX,
    pool::GATHER,
    pool::SCATTER,
    fft_conv::CONV,
    fft_conv::GRAD_KERNEL,
];
