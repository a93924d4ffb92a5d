//! The one list of CUDA rows, most preferred first.

use crate::placed::Placed;
use crate::{branches, causal, dcls, delays, depthwise, fft, pool, toeplitz};
use striate_core::{DeviceOperation, Kernel, Recipe};

/// The rows of the device.
pub fn rows() -> &'static [Kernel<Recipe>] {
    static ROWS: [Kernel<Recipe>; 3] = [toeplitz::ROW, toeplitz::TF32, depthwise::ROW];
    &ROWS
}

/// The recipe that a row makes of a problem somewhere.
pub fn compile(row: &Kernel<Recipe>, problem: &Placed<'_>) -> Recipe {
    if row.name == depthwise::ROW.name { depthwise::compile_placed(problem) } else { toeplitz::compile_placed(problem) }
}

/// The rows of operations that are not convolutions.
pub fn operations() -> &'static [DeviceOperation] {
    static ROWS: [DeviceOperation; 12] = [
        causal::CAUSAL,
        causal::UPDATE,
        pool::POOL,
        pool::ARGMAX,
        pool::SCATTER,
        pool::GATHER,
        dcls::KERNEL,
        dcls::GRADIENT,
        delays::ROW,
        fft::CONV,
        fft::GRAD_KERNEL,
        branches::ROW,
    ];
    &ROWS
}
