//! The domain of striate, free of dependencies: what a convolution is, which positions meet in it, where its
//! tensors lie, and what a kernel row promises. Every other room speaks in these nouns.

pub mod axis;
pub mod branches;
pub mod causal;
pub mod delays;
pub mod geometry;
pub mod kernel;
pub mod operation;
pub mod polynomials;
pub mod pool;
pub mod pooling;
pub mod problem;
pub mod recipe;
pub mod scalar;
pub mod spacings;
pub mod view;

pub use axis::{Axis, Pass, Sweep, Walk};
pub use geometry::{Geometry, Role};
pub use kernel::{Kernel, Operands, Program, Why};
pub use operation::{Arguments, DeviceOperation, Operation, Request, Settings, Signature};
pub use pool::{Pool, Serial};
pub use problem::{DType, Device, Layout, Problem};
pub use recipe::{Launch, Recipe, Word};
pub use scalar::{Accumulator, Bf16, Element, F16, Scalar};
pub use spacings::Spacings;
pub use view::{Tensor, TensorMut, View, ViewMut};
