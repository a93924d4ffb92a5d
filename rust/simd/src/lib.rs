//! Instruction-set tokens, every processor intrinsic of the project, and the vector loops built on them.
//!
//! A token ([`Isa`]) exists only on a processor that has its features, so holding one is the proof that its
//! instructions may run. The loops ([`correlate`], [`fir`], [`fourier`], [`gather`], [`lanes`], [`places`], [`planes`], [`rows`], [`scatter`], [`sheets`], [`slide`],
//! [`sums`], [`windows`]) are one text over tokens and accumulators; each asserts the range it will touch once and then loads
//! without checks.

pub mod ahead;
mod butterfly;
pub mod correlate;
pub mod fir;
pub mod fourier;
mod fourier_wide;
pub mod gather;
pub mod isa;
pub mod lanes;
pub mod maths;
pub mod places;
pub mod planes;
pub mod portable;
mod roots;
pub mod rows;
pub mod scatter;
pub mod sheets;
pub mod slide;
mod stockham;
mod strips;
pub mod sums;
mod tables;
mod tiles;
pub mod turn;
pub mod wave;
pub mod windows;

#[cfg(target_arch = "aarch64")]
pub mod neon;
#[cfg(target_arch = "x86_64")]
pub mod x86;

pub use isa::{Convert, Every, Isa, Simd, Task};
pub use maths::{EveryMaths, Maths};
pub use tables::forget;
pub use wave::Wave;
