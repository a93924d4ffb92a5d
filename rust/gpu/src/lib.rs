//! The only room that knows CUDA: kernel rows as recipes, the search for the driver and NVRTC, compilation behind a
//! cache on disk, and launches. A machine without CUDA is an error with a reason, never a panic; recipes and
//! compilation need no device.

mod branches;
pub mod cache;
mod causal;
mod compiler;
mod dcls;
mod delays;
mod depthwise;
mod driver;
mod fft;
mod fft_lines;
mod headers;
mod library;
mod placed;
mod pool;
mod statistics;
mod table;
mod toeplitz;
mod toeplitz_weigh;

pub use compiler::{Compiled, Compiler, compiler};
pub use driver::{Addresses, Driver, driver, machine_code};
pub use headers::HEADERS;
pub use library::search_in;
pub use table::{operations, rows};
