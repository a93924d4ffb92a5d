//! The slow truth: one short file per operator family, straight from the definition, sums carried in f64. Its rows
//! stand last in every CPU table, so that selection never fails, and first in every test.
#![forbid(unsafe_code)]

pub mod channel_sum;
pub mod conv;
pub mod copy;
pub mod fft_conv;

use striate_core::Operation;

/// The definitions of the operations other than convolution.
pub static OPERATIONS: &[Operation] = &[channel_sum::ROW, copy::ROW, fft_conv::CONV, fft_conv::GRAD_KERNEL];
