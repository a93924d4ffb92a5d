//! The only room that knows CUDA: kernel rows as recipes, the search for the driver and NVRTC, compilation behind a
//! cache on disk, and launches. A machine without CUDA is an error with a reason, never a panic; recipes and
//! compilation need no device.

mod depthwise;
mod headers;
mod table;
mod toeplitz;

pub use headers::HEADERS;
pub use table::rows;
