//! Fast processor kernels, one text for every storage type, rank, stride, dilation and instruction set.
#![forbid(unsafe_code)]

mod bands;
mod branches;
mod causal;
mod causal_update;
mod channel_sum;
mod convolution;
mod dcls;
mod delays;
mod fft_conv;
mod fft_conv_grad_kernel;
mod filter_planes;
mod filter_planes_grad;
mod flat;
mod frame;
mod interior;
mod load;
mod operations;
mod planes;
mod pool;
mod pool_index;
mod pool_scatter;
mod produce;
mod sheets;
mod slide;
mod spectra;
mod tiling;
mod weigh;
mod weights;
mod window;

use striate_core::{Kernel, Operation};

/// Every row of convolution, most preferred first.
pub fn rows() -> &'static [Kernel] {
    convolution::ROWS
}

/// Every row of the other operations, most preferred first.
pub fn operations() -> impl Iterator<Item = &'static Operation> {
    [
        branches::ROWS,
        channel_sum::ROWS,
        dcls::ROWS,
        dcls::GRADIENT_ROWS,
        delays::ROWS,
        causal::ROWS,
        causal_update::ROWS,
        pool::ROWS,
        pool::ARGMAX_ROWS,
        pool_index::GATHER_ROWS,
        pool_index::SCATTER_ROWS,
        fft_conv::ROWS,
        fft_conv_grad_kernel::ROWS,
        filter_planes::ROWS,
        filter_planes_grad::ROWS,
    ]
    .into_iter()
    .flatten()
}

/// Gives back what kernels keep between calls.
pub fn forget() {
    branches::memo::forget();
    spectra::forget();
    striate_simd::forget();
}
