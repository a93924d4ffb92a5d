//! Problems whose tensors are some channels of larger ones, or whose results are to be known by mean and variance.

use std::ops::Deref;
use striate_core::{Problem, Role};

/// A contiguous problem, and where its activations lie.
pub struct Placed<'a> {
    problem: &'a Problem,
    /// Channels of the tensors that its activations are part of.
    channels: Option<usize>,
    /// Whether the forward pass leaves moments of its results in workspace, as cuda/statistics.cuh says.
    pub moments: bool,
}

impl<'a> Placed<'a> {
    /// Whole tensors.
    pub fn whole(problem: &'a Problem) -> Placed<'a> {
        Placed { problem, channels: None, moments: false }
    }

    /// Neighbouring ones of so many channels.
    pub fn among(problem: &'a Problem, channels: usize) -> Placed<'a> {
        Placed { problem, channels: Some(channels), moments: false }
    }

    /// As [`Problem::strides`].
    pub fn strides(&self, role: Role) -> [usize; 6] {
        let mut strides = self.problem.strides(role);
        if let (Some(channels), true) = (self.channels, role != Role::Weight) {
            strides[0] = channels * self.problem.geometry.dims(role)[3..].iter().product::<usize>();
        }
        strides
    }
}

impl Deref for Placed<'_> {
    type Target = Problem;

    fn deref(&self) -> &Problem {
        self.problem
    }
}
