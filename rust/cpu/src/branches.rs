//! Depthwise convolutions side by side over one tensor, in one pass over it.
//!
//! Every branch is compiled as the convolution that it would be alone. What is new is the order: a few channels of a
//! sample are taken at a time, all branches run on them while they lie in the cache, and the next channels follow.
//! Nothing is copied: branches read and write the channels of the large tensors where they lie, and where results are
//! added, the sum is formed in the cache.
//!
//! What this does not do: the branches share the cache, not the loads; contiguous tensors only.

mod maps;
pub(crate) mod memo;
mod taps;

use crate::convolution::{channels, depthwise};
use crate::frame::Lanes;
use crate::operations::on_every_isa;
use maps::Maps;
use std::sync::Arc;
use striate_core::branches::{Branches, Form};
use striate_core::{Arguments, DType, Operation, Pass, Pool, Problem, Request, Scalar, Why, with_scalar};
use striate_simd::{Convert, Every};
use taps::Taps;

pub(crate) static ROWS: &[Operation] =
    on_every_isa!("branches", "depthwise convolutions of one tensor taking turns at a few channels");

const DTYPES: &[DType] = &DType::ALL;

fn supports(request: &Request<'_>) -> Result<(), Why> {
    let of = Branches::of(request)?;
    if of.batch * of.channels * of.plane == 0 {
        return Err("takes tensors with elements".into());
    }
    if of.statistics {
        return Err("finds no statistics".into());
    }
    if adds(&of) && of.dtype != of.dtype.accumulator() {
        return Err(format!("adds results in f32 or f64, got {}", of.dtype.name()));
    }
    of.branches.iter().try_for_each(|branch| depthwise(&branch.problem))
}

/// Whether the results of branches are added.
fn adds(of: &Branches) -> bool {
    match of.pass {
        Pass::Fwd => of.form == Form::Sum,
        Pass::Dx => of.form != Form::Split,
        Pass::Dw => false,
    }
}

fn work(request: &Request<'_>) -> f64 {
    Branches::of(request).map_or(0.0, |of| {
        let sums: f64 = of.branches.iter().map(|branch| branch.problem.geometry.macs()).sum();
        sums / 30_000.0 + (of.batch * of.channels * of.plane) as f64 / 2000.0
    })
}

/// The lanes that a branch would have alone; where taps are left out, each channel leaves out others.
fn lanes<I: Every>(of: &Branches, problem: &Problem) -> Lanes {
    if of.grain.is_none() && channels::<I>(problem).is_ok() { Lanes::Channels } else { Lanes::Width }
}

fn maps<S: Scalar, I: Every + Convert<S>>(of: &Branches, isa: I) -> Arc<Maps<S, I>> {
    memo::remembered(of, I::NAME, || Maps::new(of, isa))
}

fn taps<S: Scalar, I: Every + Convert<S>>(of: &Branches, isa: I) -> Arc<Taps<S, I>> {
    memo::remembered(of, I::NAME, || Taps::new(of, isa))
}

fn workspace<I: Every>(request: &Request<'_>, width: usize) -> usize {
    let (Ok(of), Some(isa)) = (Branches::of(request), I::detect()) else { return 0 };
    with_scalar!(of.dtype, S => match of.pass {
        Pass::Dw => taps::<S, I>(&of, isa).workspace(width),
        _ => maps::<S, I>(&of, isa).workspace(width),
    })
}

fn run<I: Every>(isa: I, request: &Request<'_>, arguments: Arguments<'_>, pool: &dyn Pool) {
    let of = Branches::of(request).expect("the request is supported");
    with_scalar!(of.dtype, S => match of.pass {
        Pass::Dw => taps::<S, I>(&of, isa).run(isa, &of, arguments, pool),
        _ => maps::<S, I>(&of, isa).run(isa, &of, arguments, pool),
    });
}
