//! Fast processor kernels, one text for every storage type, rank, stride, dilation and instruction set.
#![forbid(unsafe_code)]

mod depthwise;
mod frame;
mod interior;
mod load;
mod produce;
mod tiling;
mod weigh;
mod weights;

use striate_core::Kernel;

/// Every row, most preferred first.
pub fn rows() -> &'static [Kernel] {
    depthwise::ROWS
}
