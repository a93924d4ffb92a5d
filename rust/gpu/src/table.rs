//! The one list of CUDA rows, most preferred first.

use crate::{depthwise, toeplitz};
use striate_core::{Kernel, Recipe};

/// The rows of the device.
pub fn rows() -> &'static [Kernel<Recipe>] {
    static ROWS: [Kernel<Recipe>; 2] = [toeplitz::ROW, depthwise::ROW];
    &ROWS
}
