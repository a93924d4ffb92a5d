//! Problems whose tensors are some channels of larger ones.

use std::ops::Deref;
use striate_core::{Problem, Role};

/// A contiguous problem, and where its activations lie.
pub struct Placed<'a> {
    problem: &'a Problem,
    /// Channels of the tensors that its activations are part of.
    channels: Option<usize>,
}

impl<'a> Placed<'a> {
    /// Whole tensors.
    pub fn whole(problem: &'a Problem) -> Placed<'a> {
        Placed { problem, channels: None }
    }

    /// Neighbouring ones of so many channels.
    pub fn among(problem: &'a Problem, channels: usize) -> Placed<'a> {
        Placed { problem, channels: Some(channels) }
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
