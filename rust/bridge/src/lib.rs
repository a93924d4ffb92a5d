//! The three doors of striate: torch's dispatcher ([`torch`]), a torch-free C interface ([`capi`]) and the Python
//! module `striate._core` ([`py`]). No panic and no C++ exception crosses a door unhandled.

mod call;
mod capi;
mod config;
mod cuda;
mod handles;
mod launch;
mod listen;
mod memory;
mod own_pool;
mod planning;
mod prepared;
mod py;
mod request;
mod torch;
mod torch_pool;
mod torch_stable;
