//! Fast kernels for processors.
#![forbid(unsafe_code)]
use striate_core::Kernel;
/// Every row, most preferred first.
pub static ROWS: [Kernel; 0] = [];
