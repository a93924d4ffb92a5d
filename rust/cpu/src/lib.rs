//! Fast processor kernels, one text for every storage type, rank, stride, dilation and instruction set.
#![forbid(unsafe_code)]

mod channel_sum;
mod convolution;
mod dcls;
mod frame;
mod interior;
mod load;
mod operations;
mod produce;
mod tiling;
mod weigh;
mod weights;

use striate_core::{Kernel, Operation};

/// Every row of convolution, most preferred first.
pub fn rows() -> &'static [Kernel] {
    convolution::ROWS
}

/// Every row of the other operations, most preferred first.
pub fn operations() -> impl Iterator<Item = &'static Operation> {
    [channel_sum::ROWS, dcls::kernel::ROWS, dcls::gradient::ROWS].into_iter().flatten()
}
